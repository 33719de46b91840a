#include "engine/backend/rank.h"

#include <fmt/format.h>

#include <new>
#include <utility>

#include "base/check.h"

namespace assay::engine {
namespace {

// An operation that adds to kResidual, of which each rank has a part of what is added.
template <class Add>
void add_up(Backend& b, Comm& comm, const Add& add) {
  if (comm.rank() > 0) b.clear_residual();
  add();
  b.sum_residual(comm);
}

Reply planned(const BackendModel& model, const MemoryNeeds& needs) {
  Reply reply;
  if (auto plan = model.plan(needs))
    reply.plan = *plan;
  else
    reply.error = plan.error().message;
  return reply;
}

// All at once, as they compute.
Reply roof_of(const BackendModel& model, Comm& comm) {
  Reply reply;
  comm.meet();
  if (auto roofs = model.measure_roofs(); !roofs)
    reply.error = roofs.error().message;
  else if (!roofs->empty())
    reply.roof = roofs->front();
  return reply;
}

// Then every sum is on its way on every device: what allocates now holds up none.
void meet_before_logits(Comm& comm) { comm.meet(); }

std::vector<Sampled> samples(Backend& b, Comm& comm, std::span<const int> vocab_cuts,
                             const Command& c) {
  meet_before_logits(comm);
  std::vector<Sampled> out(comm.rank() == 0 ? c.sampled_rows.size() : 0);
  const auto requests = comm.rank() == 0 ? c.requests : std::span<const SampleRequest>();
  b.sample_of_ranks(comm, vocab_cuts, c.sampled_rows, requests, out);
  return out;
}

std::vector<float> logits(Backend& b, Comm& comm, std::span<const int> rows, int vocab) {
  meet_before_logits(comm);
  std::vector<float> part(rows.size() * static_cast<std::size_t>(vocab));
  b.logits(rows, part);
  return part;
}

}  // namespace

Result<RankModel> load_shard(const Sharding& sharding, int rank, BackendLoader load,
                             std::string_view kernel) {
  const Shard shard = sharding.of_rank(rank);
  ASSAY_TRY(auto backend, load(shard.config, shard.weights, kernel));
  return RankModel{std::move(backend), shard.config.hidden, shard.config.vocab,
                   sharding.vocab_cuts(), nullptr};
}

Reply Rank::load(int id, const std::function<Result<RankModel>()>& load, const Comm& comm) {
  Reply reply;
  try {
    Result<RankModel> model = load();
    if (!model) {
      reply.error = model.error().message;
      return reply;
    }
    reply.kernel = model->backend->kernel();
    if (!comm.how_it_sums().empty()) reply.kernel += fmt::format(", {}", comm.how_it_sums());
    reply.n_bytes = static_cast<std::int64_t>(model->backend->weight_bytes());
    reply.samples_on_device = model->backend->samples_on_device();
    models_[id] = *std::move(model);
  } catch (const std::bad_alloc&) {  // on a thread that nobody catches for
    reply.error = "no memory for its part of the weights";
  }
  return reply;
}

Reply Rank::new_executor(const Command& c, Comm& comm) {
  const RankModel& model = models_.at(c.of);
  Reply reply;
  try {
    // Where nothing is planned, sums need no room of their own.
    if (c.limits.n_rows != kUnlimited) comm.reserve(values_summed(c.limits, model.hidden));
    auto executor = model.backend->new_executor(c.n, c.limits);
    if (executor)
      executors_[c.id] = {*std::move(executor), model.vocab, model.vocab_cuts};
    else
      reply.error = executor.error().message;
  } catch (const std::bad_alloc&) {
    reply.error = "no memory to gather sums in: another process has taken it since it was planned";
  }
  return reply;
}

Reply Rank::execute(const Command& c, Comm& comm) {
  Reply reply;
  switch (c.kind) {
    case Command::Kind::kMeasureRoof:
      return roof_of(*models_.at(c.id).backend, comm);
    case Command::Kind::kPlan:
      return planned(*models_.at(c.id).backend, c.needs);
    case Command::Kind::kNewExecutor:
      return new_executor(c, comm);
    case Command::Kind::kCount:
      reply.room = executors_.at(c.id).backend->cache_room();
      reply.steps = executors_.at(c.id).backend->step_counts();
      break;
    case Command::Kind::kNewCache:
      caches_[c.id] = executors_.at(c.of).backend->new_cache(c.n);
      break;
    case Command::Kind::kFork:
      caches_[c.id] = caches_.at(c.of)->fork(c.n);
      break;
    case Command::Kind::kTruncate:
      caches_.at(c.id)->truncate(c.n);
      break;
    case Command::Kind::kCountBytes:
      reply.n_bytes = static_cast<std::int64_t>(caches_.at(c.id)->bytes());
      break;
    case Command::Kind::kDrop:
      caches_.erase(c.id);
      executors_.erase(c.id);
      models_.erase(c.id);
      break;
    case Command::Kind::kRun:
      run(c, comm, &reply);
      break;
    default:
      CHECK(false) << "not a rank's: " << static_cast<int>(c.kind);
  }
  return reply;
}

StepRows Rank::rows_of(const Command& c) const {
  StepRows rows{
      .tokens = c.tokens, .segments = {}, .may_replay = c.may_replay, .may_record = c.may_record};
  for (const CacheRows& s : c.segments)
    rows.segments.push_back({caches_.at(s.cache).get(), s.first_row, s.n_rows, s.first_position});
  return rows;
}

void Rank::run(const Command& c, Comm& comm, Reply* reply) {
  using Kind = Operation::Kind;
  const Executor& executor = executors_.at(c.id);
  Backend& b = *executor.backend;
  const std::vector<int> none;
  for (const Operation& o : c.operations) {
    switch (o.kind) {
      case Kind::kBeginStep:
        b.begin_step(rows_of(c));
        break;
      case Kind::kEmbed:
        b.embed();
        break;
      case Kind::kSetResidual:
        b.set_residual(c.residual);
        break;
      case Kind::kRmsNorm:
        b.rms_norm(o.layer, o.norm, o.in, o.out);
        break;
      case Kind::kProject:
        b.project(o.layer, o.projection, o.in, o.out);
        break;
      case Kind::kProjectAdd:
        add_up(b, comm, [&] { b.project_add(o.layer, o.projection, o.in, o.out); });
        break;
      case Kind::kAppendKv:
        b.append_kv(o.layer);
        break;
      case Kind::kIndex:
        b.index(o.layer);
        break;
      case Kind::kMlaAttention:
        b.mla_attention(o.layer, o.sparse);
        break;
      case Kind::kMlp:
        add_up(b, comm, [&] { b.mlp(o.layer); });
        break;
      case Kind::kRoute:
        b.route(o.layer);
        break;
      case Kind::kMoe:
        add_up(b, comm, [&] { b.moe(o.layer); });
        break;
      case Kind::kLogits:
        reply->values = logits(b, comm, o.of_rows ? c.logit_rows : none, executor.vocab);
        break;
      case Kind::kSample:
        reply->sampled = samples(b, comm, executor.vocab_cuts, c);
        break;
      case Kind::kEndStep:
        b.end_step();
        break;
      case Kind::kRead:
        if (comm.rank() == 0 || is_by_head(o.in)) reply->values = b.read(o.in);
        break;
      case Kind::kReadRouting:
        if (comm.rank() == 0) reply->routing = b.read_routing();
        break;
      case Kind::kReadSelection:
        if (comm.rank() == 0) reply->selection = b.read_selection();
        break;
    }
  }
  reply->may_record = b.may_record();
}

}  // namespace assay::engine
