#include "engine/expert_usage.h"

#include "engine/engine.h"
#include "engine/forward.h"

namespace assay::engine {
namespace {

class Count final : public Observer {
 public:
  explicit Count(ExpertUsage& usage) : usage_(usage) {}
  void on_tensor(const std::string&, const Backend&, Act) override {}
  void on_selection(int, const Backend&) override {}
  void on_routing(int layer, const Backend& backend) override {
    const Routing routing = backend.read_routing();
    if (usage_.n_layers <= layer) {
      usage_.n_layers = layer + 1;
      usage_.share.resize(usage_.index(usage_.n_layers, 0));
    }
    for (std::size_t i = 0; i < routing.expert.size(); ++i)
      usage_.share[usage_.index(layer, routing.expert[i])] += routing.weight[i];
  }

 private:
  ExpertUsage& usage_;
};

}  // namespace

Result<ExpertUsage> expert_usage(Engine& engine, std::span<const std::vector<int>> texts) {
  ExpertUsage usage;
  usage.n_experts = engine.info().n_experts;
  Count count(usage);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const int n = static_cast<int>(texts[i].size());
    if (n == 0 || n > engine.info().max_positions)
      return fail("text {} has {} tokens, expected 1 to {} (the model's context)", i, n,
                  engine.info().max_positions);
    Sequence sequence = engine.new_sequence(n);
    sequence.feed(texts[i]);
    Sequence* batch[] = {&sequence};
    while (sequence.n_pending() > 0) engine.step(batch, &count);
  }
  for (int l = 0; l < usage.n_layers; ++l) {
    double total = 0;
    for (int e = 0; e < usage.n_experts; ++e) total += usage.at(l, e);
    for (int e = 0; e < usage.n_experts && total > 0; ++e) usage.share[usage.index(l, e)] /= total;
  }
  return usage;
}

}  // namespace assay::engine
