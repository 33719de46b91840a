#include "engine/trace.h"

#include <cmath>

#include "base/plural.h"
#include "engine/backend/act_width.h"
#include "engine/engine.h"
#include "engine/forward.h"

namespace assay::engine {
namespace {

class Recorder final : public Observer {
 public:
  explicit Recorder(Trace* trace) : trace_(trace) {}

  int first_position = 0, n_rows = 0;  // of the step that is running

  void on_tensor(const std::string& name, const Backend& backend, Act act) override {
    const std::vector<float> values = backend.read(act);
    const auto [it, is_new] = index_.try_emplace(name, trace_->tensors.size());
    if (is_new)
      trace_->tensors.push_back({.name = name,
                                 .width = static_cast<int>(values.size()) / n_rows,
                                 .positions = {},
                                 .values = {}});
    TracedTensor& t = trace_->tensors[it->second];
    t.values.insert(t.values.end(), values.begin(), values.end());
    for (int i = 0; i < n_rows; ++i) t.positions.push_back(first_position + i);
  }

  void on_selection(int layer, const Backend& backend) override {
    const Selection s = backend.read_selection();
    for (int i = 0; i < n_rows; ++i)
      if (std::isfinite(s.margin[i]))  // where every key is chosen there is no choice
        trace_->choices.push_back(
            {fmt::format("layer{}.keys", layer), first_position + i, s.keys[i], s.margin[i]});
  }

  void on_routing(int layer, const Backend& backend) override {
    const Routing r = backend.read_routing();
    const std::size_t k = r.expert.size() / n_rows;
    for (int i = 0; i < n_rows; ++i) {
      const auto first = r.expert.begin() + static_cast<std::ptrdiff_t>(i * k);
      trace_->choices.push_back({fmt::format("layer{}.experts", layer), first_position + i,
                                 std::vector<int>(first, first + static_cast<std::ptrdiff_t>(k)),
                                 r.margin[i]});
    }
  }

 private:
  Trace* trace_;
  std::map<std::string, std::size_t> index_;
};

TensorDifference compare(const TracedTensor& a, const TracedTensor& b, double tolerance) {
  TensorDifference d{.name = a.name};
  std::map<int, std::size_t> row_of_b;
  for (std::size_t i = 0; i < b.positions.size(); ++i) row_of_b[b.positions[i]] = i;
  double squares = 0;
  bool finite = true;
  for (std::size_t i = 0; i < a.positions.size(); ++i) {
    const auto it = row_of_b.find(a.positions[i]);
    if (it == row_of_b.end()) continue;
    ++d.n_rows;
    for (int j = 0; j < a.width; ++j) {
      const float va = a.values[i * a.width + j], vb = b.values[it->second * b.width + j];
      squares += static_cast<double>(vb) * static_cast<double>(vb);
      const double delta = std::abs(static_cast<double>(va) - static_cast<double>(vb));
      const bool broken = !std::isfinite(va) || !std::isfinite(vb);
      if (delta > d.max_abs || (broken && finite)) {
        d.max_abs = delta;
        d.position = a.positions[i];
        d.column = j;
        d.value_a = va;
        d.value_b = vb;
      }
      if (broken) {
        finite = false;
        break;
      }
    }
    if (!finite) break;
  }
  if (d.n_rows > 0) d.rms = std::sqrt(squares / (static_cast<double>(d.n_rows) * a.width));
  d.diverged = !finite || d.max_abs > tolerance * (1 + d.rms);
  return d;
}

}  // namespace

Result<Trace> record_trace(Engine& engine, std::span<const int> ids) {
  const EngineInfo& info = engine.info();
  if (ids.empty()) return fail("nothing to trace: the text has no tokens");
  if (static_cast<int>(ids.size()) > info.max_positions)
    return fail("the text has {}, the model has {}", counted(ids.size(), "token"),
                counted(info.max_positions, "position"));
  for (const int id : ids)
    if (id < 0 || id >= info.vocab)
      return fail("id {} is not in the vocabulary (0 to {})", id, info.vocab - 1);
  Trace trace;
  Recorder recorder(&trace);
  Sequence sequence = engine.new_sequence(static_cast<int>(ids.size()));
  sequence.feed(ids);
  while (sequence.n_pending() > 0) {
    recorder.first_position = sequence.n_tokens();
    const int room = info.prefill_chunk - recorder.first_position % info.prefill_chunk;
    recorder.n_rows = std::min(room, sequence.n_pending());
    Sequence* batch[] = {&sequence};
    engine.step(batch, &recorder);
  }
  return trace;
}

TraceComparison compare_traces(const Trace& a, const Trace& b, double tolerance) {
  TraceComparison out;
  std::map<std::string, const TracedTensor*> in_b;
  for (const TracedTensor& t : b.tensors) in_b[t.name] = &t;
  for (const TracedTensor& t : a.tensors) {
    const auto it = in_b.find(t.name);
    if (it == in_b.end() || it->second->width != t.width) continue;
    out.tensors.push_back(compare(t, *it->second, tolerance));
    if (out.tensors.back().diverged && out.first_diverging < 0)
      out.first_diverging = static_cast<int>(out.tensors.size()) - 1;
  }
  std::map<std::pair<std::string, int>, const TracedChoice*> choice_b;
  for (const TracedChoice& c : b.choices) choice_b[{c.name, c.position}] = &c;
  for (const TracedChoice& c : a.choices) {
    const auto it = choice_b.find({c.name, c.position});
    if (it == choice_b.end() || it->second->chosen == c.chosen) continue;
    out.forks.push_back(
        fmt::format("{} at position {}: different choice, margin {:.3g} against {:.3g}", c.name,
                    c.position, c.margin, it->second->margin));
  }
  return out;
}

Result<std::vector<OracleTrace>> load_oracle_traces(const std::string& path) {
  ASSAY_TRY(const Json json, read_json(path));
  std::vector<OracleTrace> out;
  try {
    for (const Json& record : json.at("records")) {
      OracleTrace o{
          .name = record.at("name"), .ids = record.at("ids").get<std::vector<int>>(), .trace = {}};
      for (const auto& [name, rows] : record.at("states").items()) {
        TracedTensor t;
        t.name = name;
        std::map<int, std::vector<float>> by_position;
        for (const auto& [position, values] : rows.items())
          by_position[std::stoi(position)] = values.get<std::vector<float>>();
        for (const auto& [position, values] : by_position) {
          t.width = static_cast<int>(values.size());
          t.positions.push_back(position);
          t.values.insert(t.values.end(), values.begin(), values.end());
        }
        o.trace.tensors.push_back(std::move(t));
      }
      out.push_back(std::move(o));
    }
  } catch (const std::exception& error) {
    return fail(
        "{}: not an oracle of hidden states (expected records[] with name, ids and states): {}",
        path, error.what());
  }
  return out;
}

}  // namespace assay::engine
