// `mpirun -np N assay … --tp N`: the bits of N threads, and an end in order whatever goes wrong.
#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <thread>

#include "harness/cli/cli_testing.h"

namespace assay {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

std::string output_of(const char* command) {
  std::string out;
  FILE* pipe = popen(command, "r");
  CHECK(pipe != nullptr);
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) out += static_cast<char>(c);
  pclose(pipe);
  return out;
}

class Mpi : public Cli {
 protected:
  void SetUp() override {
    if (output_of("mpirun --version 2>&1").find("Open MPI") == std::string::npos)
      GTEST_SKIP() << "no Open MPI's mpirun here (Debian: openmpi-bin): this shows nothing";
  }

  // Root, few cores and no ptrace: what a container in continuous integration has.
  static std::vector<std::string> mpirun(int n) {
    return {"mpirun",
            "--allow-run-as-root",
            "--oversubscribe",
            "--bind-to",
            "none",
            "--mca",
            "btl_vader_single_copy_mechanism",
            "none",
            "-np",
            std::to_string(n)};
  }
  static Outcome on_processes(int n, const std::vector<std::string>& arguments) {
    return Program(arguments, 0, {}, mpirun(n)).wait();
  }
  static std::vector<std::string> generate(const std::string& model, const char* n_ranks) {
    return {"generate", "--model", model,          "--tp", n_ranks,      "--json",
            "--top",    "2",       "--max-tokens", "24",   "17 + 25 = ?"};
  }
  // The whole answer with every probability, but for what a clock said.
  static Json reply(const Outcome& o) {
    EXPECT_EQ(o.code, 0) << o.err;
    Json json = Json::parse(o.out, nullptr, false);
    for (const char* timing : {"prefill_s", "decode_s"}) json.erase(timing);
    return json;
  }
};

TEST_F(Mpi, ProcessesReplyWithTheBitsOfThreads) {
  for (const char* build : {"model", "vq-1.71"}) {
    const auto arguments = generate(fs::path(kModel).parent_path() / build, "2");
    const Json threads = reply(assay(arguments));
    EXPECT_EQ(threads["steps"].size(), 24u);
    EXPECT_EQ(reply(on_processes(2, arguments)), threads);
  }
  const auto arguments = generate(kModel, "3");
  EXPECT_EQ(reply(on_processes(3, arguments)), reply(assay(arguments)));
}

// On two GPUs: graphs that are recorded and replayed, prompts in chunks, and batches.
TEST_F(Mpi, ProcessesOnTwoGpusAnswerWithTheBitsOfThreads) {
  for (const char* kernel : {"graph", "bf16"}) {
    auto arguments = generate(kModel, "2");
    arguments.insert(arguments.end(), {"--backend", "cuda", "--kernel", kernel});
    const Outcome threads = assay(arguments);
    if (threads.err.find("no CUDA device here") != std::string::npos ||
        threads.err.find("asks for 2 GPUs") != std::string::npos)
      GTEST_SKIP() << threads.err << "This test shows nothing here.";
    EXPECT_EQ(reply(on_processes(2, arguments)), reply(threads)) << kernel;
  }
  const std::vector<std::string> more = {"--backend", "cuda", "--tp", "2"};
  ASSERT_THAT(assay(quick_run(dir_ / "threads", more)).code, AnyOf(0, 1));              // a verdict
  ASSERT_THAT(on_processes(2, quick_run(dir_ / "processes", more)).code, AnyOf(0, 1));  // a verdict
  EXPECT_EQ(samples_of(dir_ / "processes"), samples_of(dir_ / "threads"));
}

// As Slurm gives each process its GPU: the only one that it sees, whatever its number among them.
TEST_F(Mpi, ProcessesThatSeeOneOfTwoGpusEachAnswerWithTheBitsOfThreads) {
  auto arguments = generate(kModel, "2");
  arguments.insert(arguments.end(), {"--backend", "cuda"});
  const Outcome threads = assay(arguments);
  if (threads.err.find("no CUDA device here") != std::string::npos ||
      threads.err.find("asks for 2 GPUs") != std::string::npos)
    GTEST_SKIP() << threads.err << "This test shows nothing here.";
  const auto seeing = [&](const std::string& gpu) {
    auto words = mpirun(2);
    words.insert(words.end(), {"sh", "-c", "CUDA_VISIBLE_DEVICES=" + gpu + R"( exec "$0" "$@")"});
    return Program(arguments, 0, {}, words).wait();
  };
  EXPECT_EQ(reply(seeing("$OMPI_COMM_WORLD_LOCAL_RANK")), reply(threads));
  expect_error(seeing("0"), AllOf(HasSubstr("rank 0 of 2: it has the same "), HasSubstr("rank 1"),
                                  HasSubstr("CUDA_VISIBLE_DEVICES")));
}

TEST_F(Mpi, AnOtherNumberOfProcessesThanRanksIsAnError) {
  expect_error(on_processes(3, generate(kModel, "2")),
               AllOf(HasSubstr("mpirun started 3 processes"), HasSubstr("--tp 2")));
  expect_error(on_processes(2, generate(kModel, "1")),
               AllOf(HasSubstr("mpirun started 2 processes"), HasSubstr("--tp 1")));
}

TEST_F(Mpi, AWrongCommandIsRefusedOnce) {
  expect_error(on_processes(2, {"generate", "-m", kModel, "--no-such-flag"}),
               HasSubstr("--no-such-flag"));
  expect_error(on_processes(2, generate(dir_ / "missing", "2")), HasSubstr("missing"));
  EXPECT_EQ(on_processes(2, {"--version"}).code, 0);
}

// As MPICH's mpirun would, or srun for an MPI that knows nothing of its PMIx: each process is then
// alone in its own job.
TEST_F(Mpi, AnotherMpisLauncherIsRefusedOnce) {
  for (const auto& [size, rank] :
       {std::pair{"PMI_SIZE=2", "PMI_RANK="}, std::pair{"SLURM_NTASKS=2", "PMIX_RANK="}}) {
    const auto as_rank = [&](const std::string& n) {
      return Program({"--version"}, 0, {}, {"env", size, rank + n}).wait();
    };
    expect_error(as_rank("0"), HasSubstr("started 2 processes, but MPI knows of 1"));
    const Outcome other = as_rank("1");
    EXPECT_EQ(other.code, 2);
    EXPECT_EQ(other.err, "");
  }
}

TEST_F(Mpi, MixturesAreRefused) {
  const std::string vq = fs::path(kModel).parent_path() / "vq-1.71";
  expect_error(on_processes(2, {"attribute", kModel, vq, "--case", "arithmetic/direct/add-001-ja",
                                "--tp", "2"}),
               HasSubstr("run it without mpirun"));
}

// Rank 1 finds another folder under the same name than rank 0.
TEST_F(Mpi, ARankThatCannotLoadEndsAllWithItsReason) {
  const fs::path first = dir_ / "first", second = dir_ / "second";
  fs::create_directories(first);
  fs::create_directories(second);
  fs::create_directory_symlink(kModel, first / "model");
  const auto run = [&] {
    auto words = mpirun(1);
    words.insert(words.end(), {"-wdir", first});
    auto arguments = generate("/proc/self/cwd/model", "2");
    arguments.insert(arguments.end(), {":", "-np", "1", "-wdir", second, ASSAY_PROGRAM});
    return Program(arguments, 0, {}, words).wait();
  };
  expect_error(run(), AllOf(HasSubstr("rank 1 of 2: "), HasSubstr("is not a folder")));
  fs::create_directory_symlink(fs::path(kModel).parent_path() / "vq-1.71", second / "model");
  expect_error(run(), AllOf(HasSubstr("rank 1 of 2: "), HasSubstr("fingerprint")));
}

// Of the children of mpirun, the one that is this rank.
std::optional<pid_t> process_of_rank(pid_t mpirun, int rank) {
  const std::string all = std::to_string(mpirun);
  std::ifstream children("/proc/" + all + "/task/" + all + "/children");
  const std::string wanted = "OMPI_COMM_WORLD_RANK=" + std::to_string(rank);
  for (pid_t child = 0; children >> child;) {
    const auto variables = read_file("/proc/" + std::to_string(child) + "/environ");
    if (variables && variables->find(wanted + '\0') != std::string::npos) return child;
  }
  return {};
}

bool soon(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

TEST_F(Mpi, AKilledRankEndsTheJobAndTheRunResumesToTheSameRecord) {
  ASSERT_THAT(assay(quick_run(dir_ / "whole", {"--tp", "2"})).code, AnyOf(0, 1));  // a verdict
  Program run(quick_run(dir_ / "cut", {"--tp", "2"}), 0, {}, mpirun(2));
  const fs::path samples = dir_ / "cut" / "samples.jsonl";
  std::error_code ignored;
  ASSERT_TRUE(soon([&] { return fs::exists(samples, ignored) && fs::file_size(samples) > 3000; }));
  const auto rank_1 = process_of_rank(run.pid(), 1);
  ASSERT_TRUE(rank_1.has_value());
  kill(*rank_1, SIGKILL);
  const Outcome o = run.wait();
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.err, AllOf(HasSubstr("process rank 1"), HasSubstr("signal 9")));
  const auto whole = samples_of(dir_ / "whole");
  EXPECT_LT(samples_of(dir_ / "cut").size(), whole.size());
  EXPECT_THAT(on_processes(2, {"run", "--resume", dir_ / "cut"}).code, AnyOf(0, 1));
  EXPECT_EQ(samples_of(dir_ / "cut"), whole);
  const Json record = *read_json(dir_ / "cut" / "run.json");
  EXPECT_THAT(record["provenance"].dump(), HasSubstr("mpirun -np 2 "));
}

TEST_F(Cli, AJobOfSeveralProcessesIsRefusedOnceWithoutMpi) {
  const auto as_rank = [&](const std::string& rank) {
    return Program({"--version"}, 0, {},
                   {"env", "OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK=" + rank})
        .wait();
  };
  expect_error(as_rank("0"), HasSubstr("was built without MPI"));
  const Outcome other = as_rank("1");
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(other.err, "");
}

}  // namespace
}  // namespace assay
