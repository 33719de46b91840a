// The engine against Hugging Face transformers, float32 (golden/micro-glm/oracle).
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "base/check.h"
#include "engine/oracle_parity.h"

namespace assay::engine {
namespace {

// What one run checks, by its environment (engine/CMakeLists.txt): unit tests take the short
// records, the slow tests the long ones (or all on the reference backend, which is some hundred
// times slower). `build` is the bf16 model or a quantised one, which transformers was given
// expanded by decode_vq.py; `logits` what it said. `bf16_errors`, of a bfloat16 kernel, replaces
// the one bound by one of each record.
struct Part {
  std::string build, logits, backend, kernel, bf16_errors;
  double bound;
  int min_tokens, max_tokens, tensor_parallel;
};

const Part& part() {
  const auto of = [](const char* name, const char* otherwise) {
    const char* set = std::getenv(name);
    return std::string(set == nullptr ? otherwise : set);
  };
  static const Part kPart = {of("ASSAY_PARITY_BUILD", "model"),
                             of("ASSAY_PARITY_LOGITS", "logits.json.gz"),
                             of("ASSAY_PARITY_BACKEND", "cpu"),
                             of("ASSAY_PARITY_KERNEL", ""),
                             of("ASSAY_PARITY_BF16_ERRORS", ""),
                             std::stod(of("ASSAY_PARITY_BOUND", "2e-3")),
                             std::stoi(of("ASSAY_PARITY_MIN_TOKENS", "0")),
                             std::stoi(of("ASSAY_PARITY_MAX_TOKENS", "400")),
                             std::stoi(of("ASSAY_PARITY_TP", "1"))};
  return kPart;
}

Engine load(Attention attention) {
  auto engine =
      Engine::load(micro_glm_dir(part().build.c_str()), {.backend = part().backend,
                                                         .kernel = part().kernel,
                                                         .tensor_parallel = part().tensor_parallel,
                                                         .attention = attention});
  CHECK(engine.has_value()) << engine.error().message;
  return *std::move(engine);
}

// A GPU's claims are shown where there is one, those of several where there are as many.
class OracleParity : public testing::Test {
 protected:
  void SetUp() override {
    if (part().backend != "cuda") return;
    const auto engine =
        Engine::load(micro_glm_dir(part().build.c_str()),
                     {.backend = "cuda", .tensor_parallel = part().tensor_parallel});
    if (!engine && is_for_want_of_gpus(engine.error()))
      GTEST_SKIP() << engine.error().message << ". This test shows nothing here.";
  }
};

bool in_part(std::size_t n_tokens) {
  return static_cast<int>(n_tokens) >= part().min_tokens &&
         static_cast<int>(n_tokens) < part().max_tokens;
}

void expect_parity(const std::vector<RecordParity>& rows) {
  std::cout << part().backend << ' ' << part().kernel << ", tp " << part().tensor_parallel
            << ", bound "
            << (part().bf16_errors.empty() ? fmt::format("{}", part().bound) : part().bf16_errors)
            << "\n"
            << parity_table(rows);
  EXPECT_FALSE(rows.empty());
  for (const RecordParity& r : rows)
    EXPECT_FALSE(r.failure.has_value()) << r.name << ": " << r.failure.value_or("");
}

TEST_F(OracleParity, LogitsAgreeAtEveryListedPosition) {
  const Json records = oracle(part().logits.c_str())["records"];
  Json errors;
  if (!part().bf16_errors.empty()) {
    auto file =
        read_json(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/oracle/" + part().bf16_errors);
    ASSERT_TRUE(file.has_value()) << file.error().message
                                  << ". golden/micro-glm/oracle/bf16_error.py writes it, on a "
                                     "machine with torch, transformers and a GPU.";
    errors = *std::move(file);
  }
  std::vector<RecordParity> rows;
  for (const auto attention : {Attention::kDense, Attention::kSparse}) {
    Engine engine = load(attention);
    for (std::size_t i = 0; i < records.size(); ++i)
      if (in_part(records[i]["n"]) &&
          records[i]["index_topk"].is_null() == (attention == Attention::kDense)) {
        ParityBound bound = {.max = part().bound};
        if (!errors.is_null()) {
          const auto of_record = bf16_bound(errors, records, i);
          ASSERT_TRUE(of_record.has_value()) << of_record.error().message;
          bound = *of_record;
        }
        rows.push_back(check_logits(engine, records, i, bound));
      }
  }
  expect_parity(rows);
}

TEST_F(OracleParity, HiddenStatesAgreeAfterEveryLayer) {
  Engine engine = load(Attention::kDense);
  expect_parity({check_hidden(engine, 0, part().bound), check_hidden(engine, 1, part().bound)});
}

TEST_F(OracleParity, GreedyContinuationsAreIdentical) {
  const Json records = oracle("continuations.json.gz");
  std::vector<RecordParity> rows;
  for (const auto attention : {Attention::kDense, Attention::kSparse}) {
    Engine engine = load(attention);
    for (const Json& record : records)
      if (in_part(record["prompt_ids"].size()) &&
          record["settings"]["index_topk"].is_null() == (attention == Attention::kDense))
        rows.push_back(check_continuation(engine, record));
  }
  expect_parity(rows);
}

}  // namespace
}  // namespace assay::engine
