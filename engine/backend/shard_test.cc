// A part has exactly the weights of the whole, whatever form they are in; a model's parts together
// are the model.
#include "engine/backend/shard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <numeric>

#include "base/check.h"
#include "engine/backend/matrix_view.h"
#include "engine/backend/tiny_model.h"
#include "engine/checkpoint/checkpoint.h"

namespace assay::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// "" or the first weight of `part` that is not the whole's at (first_row + r, first_col + c).
std::string first_other_weight(const Matrix& whole, const Matrix& part, int first_row,
                               int first_col) {
  const std::vector<float> a = to_floats(whole), b = to_floats(part);
  for (int r = 0; r < part.n_rows; ++r)
    for (int c = 0; c < part.n_cols; ++c) {
      const auto of = [](const std::vector<float>& values, const Matrix& m, int row, int col) {
        return values[static_cast<std::size_t>(row) * static_cast<std::size_t>(m.n_cols) +
                      static_cast<std::size_t>(col)];
      };
      const float expected = of(a, whole, first_row + r, first_col + c), got = of(b, part, r, c);
      if (std::bit_cast<std::uint32_t>(expected) != std::bit_cast<std::uint32_t>(got))
        return fmt::format("{} ({}, {}): {} instead of {}", part.name, r, c, got, expected);
    }
  return "";
}

// "dense bf16", "vq d8 12 bits", "gptq 4" …
std::string kind_of(const Matrix& m) {
  if (const auto* vq = std::get_if<kernels::VqMatrix>(&m.codes))
    return fmt::format("vq d{} {} bits {} books", vq->dim, vq->index_bits, vq->n_books);
  if (const auto* scaled = std::get_if<kernels::ScaledMatrix>(&m.codes))
    return std::array{"gptq 4", "gptq 8", "fp8"}[static_cast<std::size_t>(scaled->kind)];
  return fmt::format("dense {}", name_of(m.dtype));
}

TEST(MatrixSlice, EveryKindHasTheWholesWeightsExactly) {
  std::map<std::string, int> n_parts;
  const TinyModel coded = TinyModel::quantised(), bf16, f32(DType::kF32);
  for (const TinyModel* model : {&coded, &bf16, &f32})
    for (const Matrix* m : all_matrices(model->weights)) {
      Owned owned;
      const int unit = column_unit(*m);
      for (const auto& [first, n] : {std::pair{0, 1}, {1, 1}, {3, 5}, {5, 16}, {8, 8}, {16, 8}}) {
        if (first + n <= m->n_rows) {
          EXPECT_EQ(first_other_weight(*m, rows_of(*m, first, n, owned), first, 0), "");
          ++n_parts[kind_of(*m) + " rows"];
        }
        if ((first + n) * unit <= m->n_cols) {
          const Matrix part = columns_of(*m, first * unit, n * unit, owned);
          EXPECT_EQ(part.n_cols, n * unit);
          EXPECT_EQ(first_other_weight(*m, part, 0, first * unit), "");
          ++n_parts[kind_of(*m) + " columns"];
          // A part of a part, as it may be: rows of columns.
          if (first + n > m->n_rows) continue;
          EXPECT_EQ(first_other_weight(*m, rows_of(part, first, n, owned), first, first * unit),
                    "");
        }
      }
    }
  for (const char* kind :
       {"dense BF16", "dense F32", "vq d8 8 bits 1 books", "vq d4 8 bits 1 books",
        "vq d2 3 bits 1 books", "vq d8 12 bits 1 books", "vq d1 2 bits 1 books",
        "vq d4 12 bits 1 books", "vq d8 8 bits 2 books", "gptq 4", "gptq 8", "fp8"}) {
    EXPECT_GT(n_parts[std::string(kind) + " rows"], 0) << kind;
    EXPECT_GT(n_parts[std::string(kind) + " columns"], 0) << kind;
  }
}

TEST(MatrixSlice, AScaleGroupStaysWholeWhereItCan) {
  const TinyModel m = TinyModel::quantised();  // groups of 16
  Owned owned;
  for (const Matrix* whole : all_matrices(m.weights)) {
    if (whole->is_dense() || whole->n_cols < 40 || 8 % column_unit(*whole) != 0) continue;
    EXPECT_EQ(column_group(columns_of(*whole, 16, 24, owned)), 16) << kind_of(*whole);
    EXPECT_EQ(column_group(columns_of(*whole, 8, 16, owned)), 8) << "halves of two groups";
    if (kind_of(*whole) == "fp8") continue;  // whose groups are squares
    EXPECT_EQ(column_group(columns_of(*whole, 24, 8, owned)), 16) << "in one group";
  }
}

Matrix down_of(kernels::VqMatrix w) {
  return {.n_rows = w.n_rows, .n_cols = w.n_cols, .name = "down", .codes = w};
}

TEST(CutColumns, AreWholeGroupsWhileThePartsAreEven) {
  const Matrix glm = down_of({.n_rows = 6144, .n_cols = 2048, .dim = 8, .group = 128});
  EXPECT_THAT(cut_columns({&glm}, 2048, 2), ElementsAre(0, 1024, 2048));
  EXPECT_THAT(cut_columns({&glm}, 2048, 3), ElementsAre(0, 640, 1280, 2048)) << "unequal";
  EXPECT_EQ(cut_columns({&glm}, 2048, 8)[1], 256);
  // micro-glm's experts are one group wide.
  const Matrix micro = down_of({.n_rows = 320, .n_cols = 96, .dim = 8, .group = 128});
  EXPECT_THAT(cut_columns({&micro}, 96, 2), ElementsAre(0, 48, 96));
  EXPECT_THAT(cut_columns({&micro}, 96, 3), ElementsAre(0, 32, 64, 96));
  // Of two kinds, what both need.
  const Matrix d12 = down_of({.n_rows = 320, .n_cols = 96, .dim = 12, .group = 24});
  EXPECT_THAT(cut_columns({&micro, &d12}, 96, 2), ElementsAre(0, 48, 96));
  EXPECT_THAT(cut_columns({&micro, &d12}, 96, 4), ElementsAre(0, 24, 48, 72, 96));
  EXPECT_TRUE(cut_columns({&micro, &d12}, 96, 5).empty()) << "four codewords of 24";
}

TEST(Sharding, RefusesWhatCannotBeShared) {
  const auto refusal = [](const ModelConfig& config, const ModelWeights& weights, int n_ranks) {
    const auto sharding = Sharding::plan(config, weights, n_ranks);
    return sharding ? std::string() : sharding.error().message;
  };
  const TinyModel six(DType::kBf16, 6);
  EXPECT_THAT(refusal(six.config, six.weights, 0), HasSubstr("is 0, expected at least 1"));
  EXPECT_THAT(refusal(six.config, six.weights, 4),
              testing::AllOf(HasSubstr("num_attention_heads is 6"), HasSubstr("1, 2, 3, 6")));
  EXPECT_EQ(refusal(six.config, six.weights, 3), "");
  const TinyModel many(DType::kBf16, 64);
  EXPECT_THAT(refusal(many.config, many.weights, 64), HasSubstr("vocab_size is 61"));
  EXPECT_THAT(refusal(many.config, many.weights, 32), HasSubstr("19 columns"));
  const TinyModel coded = TinyModel::quantised();  // two heads of 12 values, codewords of up to 8
  EXPECT_THAT(refusal(coded.config, coded.weights, 2),
              testing::AllOf(HasSubstr("12 columns each"), HasSubstr("codewords of 8")));
  const TinyModel eight = TinyModel::quantised(1, 8);  // experts 24 wide
  EXPECT_THAT(refusal(eight.config, eight.weights, 4),
              testing::AllOf(HasSubstr("24 columns"), HasSubstr("4 ranks")));
}

// Of the routed experts' codes and scales.
struct ExpertBytes {
  int gate_up = 0, down = 0, n_down_rows = 0;
};
ExpertBytes expert_bytes(const ModelWeights& w) {
  const auto bytes_of = [](const Matrix& m) {
    const auto& vq = std::get<kernels::VqMatrix>(m.codes);
    return vq.n_rows * (4 * vq.row_words() + 2 * vq.n_groups());
  };
  ExpertBytes total;
  for (const LayerWeights& l : w.layers)
    for (const MlpWeights& e : l.experts) {
      total.gate_up += bytes_of(e.gate) + bytes_of(e.up);
      total.down += bytes_of(e.down);
      total.n_down_rows += e.down.n_rows;
    }
  return total;
}

TEST(Sharding, ARankHoldsItsShareOfABuildsExperts) {
  const auto checkpoint =
      Checkpoint::open(std::string(ASSAY_SOURCE_DIR) + "/golden/micro-glm/vq-1.71");
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto weights = bind_weights(*checkpoint);
  ASSERT_TRUE(weights) << weights.error().message;
  const ExpertBytes whole = expert_bytes(*weights);
  ASSERT_GT(whole.down, 0);
  for (const int n_ranks : {2, 3}) {
    const auto sharding = Sharding::plan(checkpoint->config(), *weights, n_ranks);
    ASSERT_TRUE(sharding) << sharding.error().message;
    int n_heads = 0, vocab = 0, width = 0;
    for (int r = 0; r < n_ranks; ++r) {
      const Shard shard = sharding->of_rank(r);
      const ExpertBytes bytes = expert_bytes(shard.weights);
      EXPECT_EQ(bytes.gate_up * n_ranks, whole.gate_up);
      // A part of a row may end in a word, and in a scale, that others have too.
      EXPECT_LE(bytes.down, whole.down / n_ranks + (4 + 2) * whole.n_down_rows);
      EXPECT_GE(bytes.down, whole.down / n_ranks);
      n_heads += shard.config.n_heads;
      vocab += shard.weights.lm_head.n_rows;
      width += shard.config.moe_intermediate;
      EXPECT_EQ(shard.config.vocab, shard.weights.lm_head.n_rows);
      EXPECT_EQ(shard.weights.embed.n_rows, 3072) << "whole";
      EXPECT_EQ(shard.weights.layers[1].o.n_cols, shard.config.n_heads * 64);
    }
    EXPECT_EQ(n_heads, 6);
    EXPECT_EQ(vocab, 3072);
    EXPECT_EQ(width, 96);
  }
}

}  // namespace
}  // namespace assay::engine
