#include "engine/quantize/quantize.h"

#include <algorithm>
#include <numeric>

#include "base/file.h"
#include "engine/backend/matrix_view.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/fingerprint.h"
#include "engine/checkpoint/unfinished.h"
#include "engine/quantize/build_config.h"
#include "engine/quantize/encode_layer.h"
#include "engine/quantize/identity.h"
#include "engine/quantize/kept_sample.h"
#include "engine/quantize/output_place.h"
#include "engine/quantize/report.h"
#include "engine/quantize/state.h"
#include "engine/quantize/state_check.h"
#include "engine/quantize/token_focus.h"

namespace assay::engine {
namespace {

std::vector<int> lengths_of(const std::vector<CalibrationText>& texts) {
  std::vector<int> out;
  for (const CalibrationText& t : texts) out.push_back(static_cast<int>(t.ids.size()));
  return out;
}

Result<void> check_texts(const std::vector<CalibrationText>& texts, const ModelConfig& c,
                         const std::string& set) {
  if (texts.empty()) return fail("{}: the calibration set is empty", set);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto n = static_cast<int>(texts[i].ids.size());
    if (n == 0 || n > c.max_positions)
      return fail(
          "{}: calibration text {} has {} tokens, expected 1 to {} (the model's positions): "
          "shorten "
          "it or leave it out",
          set, i + 1, n, c.max_positions);
    for (const int id : texts[i].ids)
      if (id < 0 || id >= c.vocab)
        return fail(
            "{}: calibration text {} has token {}, expected 0 to {}: use this model's tokenizer",
            set, i + 1, id, c.vocab - 1);
  }
  return {};
}

// What a layer of this model does not have.
Result<void> check_kept_sample(const Recipe& recipe, const ModelConfig& c) {
  if (recipe.kept_sample <= c.n_experts) return {};
  return fail(
      "setting kept_sample: got {}, expected 0 to {}: a layer of this model has so many experts to "
      "measure on",
      recipe.kept_sample, c.n_experts);
}

class Job {
 public:
  Job(const QuantizeInput& in, const Checkpoint& checkpoint, const ModelWeights& weights,
      const State& state, Json identity, Stop& stop)
      : in_(in),
        checkpoint_(checkpoint),
        config_(checkpoint.config()),
        weights_(weights),
        state_(state),
        identity_(std::move(identity)),
        stop_(stop),
        pool_(in.n_threads),
        pass_(config_, lengths_of(in.texts), in.n_threads, stop) {}

  Result<QuantizeReport> run() {
    ASSAY_TRY_VOID(weigh_tokens());
    ASSAY_TRY_VOID(gather_stats());
    ASSAY_TRY_VOID(plan());
    for (int round = 0; round < in_.recipe.n_rounds; ++round) {
      if (round > 0) ASSAY_TRY_VOID(refit_codebooks(round));
      ASSAY_TRY_VOID(encode(round));
    }
    return finish(in_.recipe.n_rounds - 1);
  }

 private:
  int n_layers() const { return config_.n_layers; }
  void progress(std::string_view stage, int done, int total) const {
    if (in_.on_progress) in_.on_progress(stage, done, total);
  }
  void finished(std::string_view stage, int layer) const {
    if (in_.on_layer) in_.on_layer(stage, layer);
  }
  Result<Rows> embedded() const {
    std::vector<std::vector<int>> ids;
    for (const CalibrationText& t : in_.texts) ids.push_back(t.ids);
    return pass_.embed(weights_.embed, ids);
  }

  // Where the bf16 model is unsure of what follows.
  Result<void> weigh_tokens() {
    if (in_.recipe.focus == 0) return {};
    if (!state_.has_uncertainty()) {
      ASSAY_TRY(Rows residual, embedded());
      for (int l = 0; l < n_layers(); ++l) {
        progress("focus", l, n_layers());
        const LayerWeights& w = weights_.layers[static_cast<std::size_t>(l)];
        ASSAY_TRY_VOID(pass_.attention(l, w, residual, {}));
        ASSAY_TRY_VOID(pass_.mlp(l, w, residual));
        finished("focus", l);
      }
      std::vector<int> reply;
      for (const CalibrationText& t : in_.texts) reply.push_back(t.reply);
      ASSAY_TRY(const std::vector<float> found,
                token_uncertainty(config_, weights_, residual, lengths_of(in_.texts), reply, pool_,
                                  &stop_));
      ASSAY_TRY_VOID(state_.save_uncertainty(found));
    }
    ASSAY_TRY(const std::vector<float> uncertainty, state_.load_uncertainty());
    if (static_cast<int>(uncertainty.size()) != pass_.n_tokens())
      return fail("{}: {} tokens, expected {}. Delete the folder and begin again",
                  state_.folder().string(), uncertainty.size(), pass_.n_tokens());
    pass_.weigh_tokens(token_weights(uncertainty, in_.recipe.focus));
    return {};
  }

  // The bf16 model over the calibration set: what every expert sees, and what its errors weigh.
  Result<void> gather_stats() {
    int n_done = 0;
    while (n_done < n_layers() && (config_.is_dense_layer(n_done) || state_.has_stats(n_done)))
      ++n_done;
    Rows residual;
    if (n_done < n_layers()) {
      ASSAY_TRY(residual, embedded());
    }
    for (int l = 0; l < n_layers(); ++l) {
      if (n_done < n_layers()) {
        progress("statistics", l, n_layers());
        const LayerWeights& w = weights_.layers[static_cast<std::size_t>(l)];
        ASSAY_TRY_VOID(pass_.attention(l, w, residual, {}));
        std::optional<MoeInputs> inputs;
        if (!config_.is_dense_layer(l) && !state_.has_stats(l)) {
          ASSAY_TRY(inputs, pass_.moe_inputs(l, w, residual));
        }
        ASSAY_TRY_VOID(pass_.mlp(l, w, residual));
        if (inputs) {
          ASSAY_TRY(const std::vector<ExpertStats> found,
                    expert_stats(config_, w, *inputs, pool_, &stop_));
          ASSAY_TRY_VOID(state_.save_stats(l, found));
        }
        finished("statistics", l);
      }
    }
    for (int l = 0; l < n_layers(); ++l) {
      stats_.emplace_back();
      if (!config_.is_dense_layer(l)) {
        ASSAY_TRY(stats_.back(), state_.load_stats(l));
      }
    }
    return {};
  }

  Result<void> plan() {
    if (!state_.has_plan()) {
      PlanHooks hooks{in_.on_progress, &stop_, &state_, {}};
      if (in_.recipe.kept_sample > 0)
        hooks.measure_kept = [this](const auto& books, const auto& predicted) {
          return measure_kept(books, predicted);
        };
      ASSAY_TRY(const Plan made, make_plan(weights_, stats_, in_.recipe, pool_, hooks));
      ASSAY_TRY_VOID(write_plan(state_.folder(), made, in_.recipe));
    }
    ASSAY_TRY(plan_, read_plan(state_.folder(), in_.recipe, stats_));
    return {};
  }

  Result<Kept> measure_kept(const std::vector<Codebook>& books,
                            const std::vector<LayerErrors>& predicted) {
    const KeptSampleInput input{
        .config = config_,
        .weights = weights_,
        .recipe = in_.recipe,
        .stats = stats_,
        .state = state_,
        .pass = pass_,
        .pool = pool_,
        .stop = stop_,
        .embedded = [this] { return embedded(); },
        .on_progress = [this](int done, int total) { progress("kept", done, total); },
        .on_layer = [this](int layer) { finished("kept", layer); }};
    ASSAY_TRY(const std::vector<SampledLayer> sample, sample_kept(input, books));
    return kept_of_sample(sample, predicted);
  }

  // Codebooks by least squares from the codes and scales of the round before.
  Result<void> refit_codebooks(int round) {
    ASSAY_TRY_VOID(state_.begin_round(round));
    std::error_code ignored;
    if (fs::exists(state_.codebooks_file(round), ignored)) return {};
    ASSAY_TRY(const std::vector<Codebook> before,
              read_codebooks(state_.codebooks_file(round - 1), in_.recipe.tiers));
    std::vector<CodebookRefit> refits;
    for (const Codebook& book : before) refits.emplace_back(book);
    for (int l = 0; l < n_layers(); ++l) {
      if (config_.is_dense_layer(l)) continue;
      const LayerWeights& original = weights_.layers[static_cast<std::size_t>(l)];
      ASSAY_TRY(const SafetensorsFile file, state_.open_layer(round - 1, l));
      ASSAY_TRY(const LayerWeights coded,
                coded_layer(l, original, file, plan_, before, in_.recipe));
      for (std::size_t e = 0; e < coded.experts.size(); ++e) {
        ASSAY_TRY_VOID(stop_.check());
        add_to_refits(l, e, original.experts[e], coded.experts[e], refits);
      }
    }
    std::vector<Codebook> after;
    for (const CodebookRefit& refit : refits) after.push_back(refit.codebook());
    return write_sealed(state_.codebooks_file(round), codebook_tensors(after, in_.recipe.tiers));
  }

  void add_to_refits(int layer, std::size_t expert, const MlpWeights& original,
                     const MlpWeights& coded, std::vector<CodebookRefit>& refits) const {
    const ExpertStats& s = stats_[static_cast<std::size_t>(layer)][expert];
    const std::array<std::tuple<const Matrix*, const Matrix*, const ProjectionStats*>, 3>
        projections = {{{&original.gate, &coded.gate, &s.gate},
                        {&original.up, &coded.up, &s.up},
                        {&original.down, &coded.down, &s.down}}};
    for (std::size_t p = 0; p < projections.size(); ++p) {
      const auto& [dense, code, stats] = projections[p];
      const auto& vq = std::get<kernels::VqMatrix>(code->codes);
      std::vector<std::uint16_t> indices,
          scales(static_cast<std::size_t>(vq.n_rows) * static_cast<std::size_t>(vq.n_groups()));
      for (int r = 0; r < vq.n_rows; ++r)
        for (int j = 0; j < vq.n_subvectors(); ++j)
          indices.push_back(static_cast<std::uint16_t>(kernels::vq_index(vq, r, j)));
      std::memcpy(scales.data(), vq.scales, scales.size() * 2);
      // What an error in a column costs: its energy, times what an average row weighs.
      const double row =
          std::accumulate(stats->row_weight.begin(), stats->row_weight.end(), 0.0) / vq.n_rows;
      std::vector<double> diagonal;
      for (const float energy : stats->col_energy)
        diagonal.push_back(row * static_cast<double>(energy));
      const std::vector<float> w = to_floats(*dense);
      const auto tier =
          static_cast<std::size_t>(plan_.tier[static_cast<std::size_t>(layer)][expert][p]);
      refits[tier].add(w.data(), vq.n_rows, vq.n_cols, indices.data(), scales.data(), vq.group,
                       diagonal.data());
    }
  }

  Result<void> encode(int round) {
    ASSAY_TRY_VOID(state_.begin_round(round));
    // A later round's codebooks exist only when this one is finished.
    if (round + 1 < in_.recipe.n_rounds && fs::exists(state_.codebooks_file(round + 1))) return {};
    ASSAY_TRY(codebooks_, read_codebooks(state_.codebooks_file(round), in_.recipe.tiers));
    LayerEncoder encoder(config_, in_.recipe, plan_, codebooks_, pass_, pool_, stop_);
    const int total = in_.recipe.n_rounds * (n_layers() + 1);
    ASSAY_TRY(Rows residual, embedded());
    for (int l = 0; l < n_layers(); ++l) {
      const bool is_kept = state_.has_layer(round, l);
      progress(is_kept ? "kept layers" : "encoding", round * (n_layers() + 1) + l, total);
      const LayerWeights& w = weights_.layers[static_cast<std::size_t>(l)];
      if (is_kept) {
        ASSAY_TRY(const SafetensorsFile file, state_.open_layer(round, l));
        ASSAY_TRY(const LayerWeights coded, coded_layer(l, w, file, plan_, codebooks_, in_.recipe));
        ASSAY_TRY_VOID(pass_.attention(l, coded, residual, {}));
        ASSAY_TRY_VOID(pass_.mlp(l, coded, residual));
        continue;
      }
      ASSAY_TRY(const EncodedLayer layer, encoder.encode(l, w, residual));
      ASSAY_TRY_VOID(state_.save_layer(round, l, layer.tensors, layer.report));
      finished("encoding", l);
    }
    if (!state_.has_layer(round, n_layers())) {
      progress("encoding", round * (n_layers() + 1) + n_layers(), total);
      ASSAY_TRY(const EncodedLayer ends, encoder.encode_ends(weights_, residual));
      ASSAY_TRY_VOID(state_.save_layer(round, n_layers(), ends.tensors, ends.report));
      finished("encoding", n_layers());
    }
    progress("encoding", (round + 1) * (n_layers() + 1), total);
    return {};
  }

  bool is_used(int tier) const {
    for (const auto& layer : plan_.tier)
      for (const auto& expert : layer)
        if (std::find(expert.begin(), expert.end(), tier) != expert.end()) return true;
    return false;
  }

  Result<QuantizeReport> finish(int round) {
    QuantizeReport report;
    const fs::path& out = in_.out;
    for (int l = 0; l <= n_layers(); ++l) {
      ASSAY_TRY(const Json modules, state_.load_report(round, l));
      modules_.update(modules);
    }
    for (std::size_t l = 0; l < plan_.error.size(); ++l)
      for (std::size_t e = 0; e < plan_.error[l].size(); ++e)
        for (std::size_t p = 0; p < kProjections.size(); ++p)
          modules_[expert_module(static_cast<int>(l), e, p)]["predicted_error"] =
              plan_.error[l][e][p];
    Json weight_map = Json::object();
    for (int l = 0; l <= n_layers(); ++l) {
      const std::string shard =
          fmt::format("model-{:05}-of-{:05}.safetensors", l + 1, n_layers() + 1);
      ASSAY_TRY(const SafetensorsFile file, SafetensorsFile::open(state_.layer_file(round, l)));
      for (const TensorView& t : file.tensors()) weight_map[t.name] = shard;
      // A second name for the same bytes, so that a run that is killed here can go on.
      std::error_code error;
      fs::remove(out / shard, error);
      fs::create_hard_link(state_.layer_file(round, l), out / shard, error);
      ASSAY_TRY_VOID(stop_.check());  // a copy may take as long as a layer is large
      if (error)
        fs::copy_file(state_.layer_file(round, l), out / shard,
                      fs::copy_options::overwrite_existing, error);
      if (error) return fail("cannot write {}: {}", (out / shard).string(), error.message());
      report.n_bytes += static_cast<std::int64_t>(fs::file_size(out / shard));
    }
    ASSAY_TRY(codebooks_, read_codebooks(state_.codebooks_file(round), in_.recipe.tiers));
    std::vector<Tier> tiers;
    std::vector<Codebook> books;
    for (std::size_t t = 0; t < codebooks_.size(); ++t)
      if (is_used(static_cast<int>(t))) {
        tiers.push_back(in_.recipe.tiers[t]);
        books.push_back(codebooks_[t]);
      }
    codebooks_ = std::move(books);
    ASSAY_TRY_VOID(
        write_tensors(out / "vq_codebooks.safetensors", codebook_tensors(codebooks_, tiers)));
    report.n_bytes += static_cast<std::int64_t>(fs::file_size(out / "vq_codebooks.safetensors"));
    ASSAY_TRY_VOID(write_file_atomic(
        out / "model.safetensors.index.json",
        Json{{"metadata", {{"total_size", report.n_bytes}}}, {"weight_map", weight_map}}.dump(0) +
            "\n"));
    for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                             "generation_config.json"}) {
      std::error_code error;
      if (!fs::exists(checkpoint_.dir() / name, error)) continue;
      ASSAY_TRY(const std::string bytes, read_file(checkpoint_.dir() / name));
      ASSAY_TRY_VOID(write_file_atomic(out / name, bytes));
    }
    std::vector<SafetensorsFile> files;
    for (int l = 0; l <= n_layers(); ++l) {
      ASSAY_TRY(SafetensorsFile file, SafetensorsFile::open(state_.layer_file(round, l)));
      files.push_back(std::move(file));
    }
    ASSAY_TRY(SafetensorsFile books_file, SafetensorsFile::open(out / "vq_codebooks.safetensors"));
    files.push_back(std::move(books_file));
    fill(report);
    ASSAY_TRY(report.json["fingerprint"],
              fingerprint_of(files, {}, [this] { return stop_.check(); }));
    ASSAY_TRY_VOID(write_file_atomic(out / "quantisation.json", report.json.dump(0) + "\n"));
    ASSAY_TRY_VOID(save_finished_identity(out, identity_));
    ASSAY_TRY_VOID(write_build_config(checkpoint_.dir(), out, in_.recipe, modules_));
    state_.remove();
    return report;
  }

  void fill(QuantizeReport& report) const {
    const ExpertBits bits = expert_bits(weights_, plan_, in_.recipe, codebooks_);
    report.code_bits = bits.code;
    report.total_bits = bits.total();
    report.predicted_error = plan_.predicted_error;
    report.lower_bound = plan_.lower_bound;
    CalibrationRecord calibration{.set = in_.calibration,
                                  .n_texts = static_cast<int>(in_.texts.size()),
                                  .tokens_by_language = tokens_by_language(in_.texts),
                                  .fingerprints = {}};
    for (const CalibrationText& t : in_.texts)
      calibration.fingerprints.push_back(fingerprint_of(t));
    Json samples = Json::array();
    for (const auto& layer : stats_) {
      Json of_layer = Json::array();
      for (const ExpertStats& e : layer) of_layer.push_back(e.n_tokens);
      samples.push_back(of_layer);
    }
    report.json = {{"recipe", in_.recipe.to_json()},
                   {"calibration", to_json(calibration)},
                   {"expert_bits", to_json(bits)},
                   {"allocation",
                    {{"predicted_error", plan_.predicted_error},
                     {"lower_bound", plan_.lower_bound},
                     {"prediction", prediction_json(modules_)}}},
                   {"n_mtp_layers_left_out", config_.n_mtp_layers},
                   {"samples_per_expert", samples},
                   {"modules", modules_}};
    if (in_.recipe.kept_sample > 0)
      report.json["allocation"]["kept"] = kept_json(plan_.kept, in_.recipe.tiers);
  }

  const QuantizeInput& in_;
  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const ModelWeights& weights_;
  const State& state_;
  Json identity_;
  Stop& stop_;
  ThreadPool pool_;
  LayerPass pass_;
  ModelStats stats_;
  Plan plan_;
  std::vector<Codebook> codebooks_;
  Json modules_ = Json::object();
};

// Nothing but what its folder says; damaged, it is an error. A lost config.json is made again.
Result<QuantizeReport> report_of_finished(const QuantizeInput& in) {
  const fs::path& out = in.out;
  QuantizeReport report;
  std::error_code ignored;
  report.is_finished_before = true;
  report.has_restored_config = !fs::exists(out / "config.json", ignored);
  if (report.has_restored_config) ASSAY_TRY_VOID(restore_build_config(in.model, out, in.recipe));
  ASSAY_TRY_VOID(Checkpoint::open(out));
  fs::remove_all(quantise_state(out), ignored);  // of a run that was killed as it tidied up
  ASSAY_TRY(report.json, read_json(out / "quantisation.json"));
  return report;
}

}  // namespace

Result<void> check_output(const fs::path& out) {
  ASSAY_TRY_VOID(check_place(out));
  ASSAY_TRY_VOID(State::lock_what_is_there(out));  // and given back
  return {};
}

Result<QuantizeReport> quantize(const QuantizeInput& in) {
  ASSAY_TRY_VOID(in.recipe.check());
  ASSAY_TRY_VOID(check_place(in.out));
  ASSAY_TRY(StateLock lock, State::lock_what_is_there(in.out));
  ASSAY_TRY(const Checkpoint checkpoint, Checkpoint::open(in.model));
  const ModelConfig& config = checkpoint.config();
  if (!config.quantisation.method().empty())
    return fail("{} is quantised already (quant_method {} in config.json): quantise the original",
                in.model.string(), config.quantisation.method());
  ASSAY_TRY_VOID(check_kept_sample(in.recipe, config));
  ASSAY_TRY_VOID(check_space(in.out, checkpoint, in.recipe));
  // Before the values and the fingerprint are read, which takes hours.
  ASSAY_TRY_VOID(check_state(quantise_state(in.out)));
  ASSAY_TRY(const ModelWeights weights, bind_weights(checkpoint));
  ASSAY_TRY_VOID(check_spine(weights, in.recipe));
  ASSAY_TRY_VOID(check_texts(in.texts, config, in.calibration));
  ASSAY_TRY(const std::string fingerprint, checkpoint.fingerprint());
  const Json identity = identity_of(in, fingerprint);
  ASSAY_TRY(const bool is_done, is_finished(in.out, identity));
  if (is_done) return report_of_finished(in);
  ASSAY_TRY(const State state, State::open(in.out, identity, std::move(lock)));
  Stop stop(in.interrupted);
  auto done = Job(in, checkpoint, weights, state, identity, stop).run();
  if (done) done->is_resumed = state.is_resumed();
  if (!stop.is_stopped()) return done;
  QuantizeReport report;
  report.in_hand = state.piece_in_hand(config, in.recipe);
  const auto unfinished = unfinished_quantisation(in.out);
  report.interrupted_at = unfinished ? unfinished->text() : "a state that cannot be read";
  return report;
}

}  // namespace assay::engine
