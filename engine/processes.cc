#include "engine/processes.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/backend/rank_server.h"
#include "engine/comm/processes.h"
#include "engine/model.h"

namespace assay::engine {
namespace {

Processes* joined = nullptr;  // as MPI itself is: one in a process

// All: an error where a process is of another build than rank 0, whose messages it would not read.
Result<void> check_build(Processes& processes, std::string_view build) {
  std::string own(build);
  own.resize(256);
  std::string all(own.size() * static_cast<std::size_t>(processes.size()), '\0');
  processes.gather(std::as_bytes(std::span(own)), reinterpret_cast<std::byte*>(all.data()));
  const std::string first = all.substr(0, own.size());
  if (own == first) return agree(processes, "");
  return agree(processes, fmt::format("is {}, but rank 0 is {}: install one build on every machine",
                                      own.c_str(), first.c_str()));
}

}  // namespace

Processes* joined_processes() { return joined; }

ProcessJob::ProcessJob(std::unique_ptr<Processes> processes) : processes_(std::move(processes)) {}
ProcessJob::ProcessJob(ProcessJob&&) noexcept = default;

Result<ProcessJob> ProcessJob::join(std::string_view build) {
  ASSAY_TRY(auto processes, join_processes());
  if (auto same = check_build(*processes, build); !same) {
    processes->leave();
    return tl::unexpected<Error>(same.error());
  }
  if (processes->rank() == 0 && processes->size() > 1) joined = processes.get();
  return ProcessJob(std::move(processes));
}

ProcessJob::~ProcessJob() {
  if (processes_ == nullptr) return;
  if (leads())
    for (int rank = 1; rank < size(); ++rank)
      processes_->send(rank, to_bytes(Command{.kind = Command::Kind::kLeave}));
  joined = nullptr;
  processes_->leave();
}

bool ProcessJob::leads() const { return processes_->rank() == 0; }
int ProcessJob::rank() const { return processes_->rank(); }
int ProcessJob::size() const { return processes_->size(); }
void ProcessJob::serve() { serve_rank(*processes_, {find_backend, load_rank_model}); }
void ProcessJob::abandon(int exit_code) { processes_->abandon(exit_code); }

}  // namespace assay::engine
