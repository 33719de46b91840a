#include "engine/quantize/layer_pass.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/backend/matrix_view.h"

namespace assay::engine {
namespace {

constexpr int kRowsPerStep = 2048;

// A model of this layer alone.
ModelConfig alone(const ModelConfig& config, int layer) {
  ModelConfig c = config;
  c.n_layers = 1;
  c.first_dense_layers = config.is_dense_layer(layer) ? 1 : 0;
  c.indexer_full = {config.indexer_full.empty() ||
                    config.indexer_full[static_cast<std::size_t>(layer)]};
  c.n_mtp_layers = 0;
  return c;
}

// Without what only the second half of a layer needs: experts are nearly all of its bytes.
LayerWeights without_mlp(const LayerWeights& weights) {
  LayerWeights w = weights;
  w.mlp = {};
  w.experts.clear();
  return w;
}

class SeeObserver final : public Observer {
 public:
  explicit SeeObserver(const LayerPass::See& see) : see_(see) {}
  void on_tensor(const std::string& name, const Backend& backend, Act act) override {
    constexpr std::string_view kPrefix = "layer0.";
    if (name.starts_with(kPrefix))
      see_(std::string_view(name).substr(kPrefix.size()), backend, act);
  }
  void on_selection(int, const Backend&) override {}
  void on_routing(int, const Backend&) override {}

 private:
  const LayerPass::See& see_;
};

}  // namespace

LayerPass::LayerPass(const ModelConfig& config, std::vector<int> text_lengths, int n_threads,
                     Stop& stop)
    : config_(config), lengths_(std::move(text_lengths)), stop_(stop), n_threads_(n_threads) {
  for (const int n : lengths_) {
    CHECK(n > 0);
    n_tokens_ += n;
  }
}

Result<Rows> LayerPass::embed(const Matrix& embedding,
                              const std::vector<std::vector<int>>& texts) const {
  const kernels::WeightMatrix table = view(embedding);
  const auto hidden = static_cast<std::int64_t>(config_.hidden);
  Rows rows;
  rows.reserve(static_cast<std::size_t>(n_tokens_) * static_cast<std::size_t>(hidden));
  for (const std::vector<int>& text : texts)
    for (const int id : text) {
      ASSAY_TRY_VOID(stop_.check());
      for (std::int64_t i = 0; i < hidden; ++i)
        rows.push_back(kernels::weight_at(table, id * hidden + i));
    }
  return rows;
}

// body(backend, one-layer config, first row, rows), once `residual`'s rows are set. Chunks are
// whole texts, so a cache lives no longer than its step.
template <class Body>
Result<void> LayerPass::for_each_chunk(int layer, const LayerWeights& weights, const Rows& residual,
                                       const Body& body) {
  const auto hidden = static_cast<std::size_t>(config_.hidden);
  CHECK(residual.size() == static_cast<std::size_t>(n_tokens_) * hidden) << residual.size();
  const ModelConfig c = alone(config_, layer);
  ModelWeights one;
  one.layers = {weights};
  ASSAY_TRY(const auto model, load_cpu_model(c, one, ""));
  ASSAY_TRY(const std::unique_ptr<Backend> backend, model->new_executor(n_threads_, {}));
  int first_row = 0;
  for (std::size_t t = 0; t < lengths_.size();) {
    ASSAY_TRY_VOID(stop_.check());
    StepRows rows;
    std::vector<std::unique_ptr<KvCache>> caches;
    do {
      const int n = lengths_[t++];
      caches.push_back(backend->new_cache(n));
      rows.segments.push_back({caches.back().get(), rows.n_rows(), n, 0});
      rows.tokens.insert(rows.tokens.end(), static_cast<std::size_t>(n), 0);
    } while (t < lengths_.size() && rows.n_rows() + lengths_[t] <= kRowsPerStep);
    backend->begin_step(rows);
    backend->set_residual(
        std::span(residual).subspan(static_cast<std::size_t>(first_row) * hidden,
                                    static_cast<std::size_t>(rows.n_rows()) * hidden));
    body(*backend, c, first_row, rows.n_rows());
    backend->end_step();
    first_row += rows.n_rows();
  }
  return {};
}

Result<void> LayerPass::attention(int layer, const LayerWeights& weights, Rows& residual,
                                  const See& see) {
  SeeObserver observer(see);
  return for_each_chunk(
      layer, without_mlp(weights), residual, [&](Backend& b, const ModelConfig& c, int first, int) {
        attention_block(b, c, 0, false, see ? &observer : nullptr);
        const std::vector<float> out = b.read(Act::kResidual);
        std::copy(out.begin(), out.end(),
                  residual.begin() + static_cast<std::ptrdiff_t>(first) * c.hidden);
      });
}

Result<void> LayerPass::watch_attention(int layer, const LayerWeights& weights,
                                        const Rows& residual, const See& see) {
  SeeObserver observer(see);
  return for_each_chunk(layer, without_mlp(weights), residual,
                        [&](Backend& b, const ModelConfig& c, int, int) {
                          attention_block(b, c, 0, false, &observer);
                        });
}

Result<void> LayerPass::mlp(int layer, const LayerWeights& weights, Rows& residual) {
  return for_each_chunk(
      layer, weights, residual, [&](Backend& b, const ModelConfig& c, int first, int) {
        mlp_block(b, c, 0);
        const std::vector<float> out = b.read(Act::kResidual);
        std::copy(out.begin(), out.end(),
                  residual.begin() + static_cast<std::ptrdiff_t>(first) * c.hidden);
      });
}

Result<Rows> LayerPass::mlp_inputs(int layer, const LayerWeights& weights, const Rows& residual) {
  Rows out;
  out.reserve(residual.size());
  ASSAY_TRY_VOID(for_each_chunk(layer, without_mlp(weights), residual,
                                [&](Backend& b, const ModelConfig&, int, int) {
                                  b.rms_norm(0, Norm::kPostAttention, Act::kResidual, Act::kNormed);
                                  const std::vector<float> x = b.read(Act::kNormed);
                                  out.insert(out.end(), x.begin(), x.end());
                                }));
  return out;
}

Result<MoeInputs> LayerPass::moe_inputs(int layer, const LayerWeights& weights,
                                        const Rows& residual) {
  MoeInputs out;
  ASSAY_TRY_VOID(for_each_chunk(
      layer, without_mlp(weights), residual, [&](Backend& b, const ModelConfig&, int first, int) {
        b.rms_norm(0, Norm::kPostAttention, Act::kResidual, Act::kNormed);
        b.route(0);
        const std::vector<float> x = b.read(Act::kNormed);
        const Routing routing = b.read_routing();
        out.x.insert(out.x.end(), x.begin(), x.end());
        out.expert.insert(out.expert.end(), routing.expert.begin(), routing.expert.end());
        const std::vector<float> r = b.read(Act::kResidual);
        const std::size_t width = static_cast<std::size_t>(config_.hidden), n = r.size() / width;
        const std::size_t top_k = routing.weight.size() / n;
        for (std::size_t t = 0; t < n; ++t) {
          double square = 0;
          for (std::size_t c = 0; c < width; ++c)
            square += static_cast<double>(r[t * width + c]) * static_cast<double>(r[t * width + c]);
          const double weight =
              token_weight_.empty()
                  ? 1.0
                  : static_cast<double>(token_weight_[static_cast<std::size_t>(first) + t]);
          const auto by = static_cast<float>(std::sqrt(weight / square));
          for (std::size_t k = 0; k < top_k; ++k)
            out.weight.push_back(routing.weight[t * top_k + k] * by);
        }
      }));
  return out;
}

}  // namespace assay::engine
