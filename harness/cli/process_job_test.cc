// Which processes are ranks of a job, by what launchers leave in the environment.
#include "harness/cli/process_job.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <string>

namespace assay::cli {
namespace {

using Variables = std::map<std::string, std::string>;

int n_processes_with(const Variables& variables) {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "PMI_RANK",
                           "PMIX_RANK", "SLURM_NTASKS", "SLURM_PROCID"})
    unsetenv(name);
  for (const auto& [name, value] : variables) setenv(name.c_str(), value.c_str(), 1);
  return n_processes();
}

TEST(ProcessJob, EveryLauncherIsRecognised) {
  EXPECT_EQ(n_processes_with({}), 1);
  EXPECT_EQ(n_processes_with({{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}}), 2);
  EXPECT_EQ(n_processes_with({{"PMI_SIZE", "3"}, {"PMI_RANK", "0"}}), 3);
  EXPECT_EQ(n_processes_with({{"PMIX_RANK", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}),
            4);
}

TEST(ProcessJob, WhoHasNoRankIsAlone) {
  EXPECT_EQ(n_processes_with({{"PMI_SIZE", "2"}}), 1) << "left over";
  EXPECT_EQ(n_processes_with({{"SLURM_NTASKS", "4"}}), 1) << "a batch script itself";
  EXPECT_EQ(n_processes_with({{"PMIX_RANK", "0"}}), 1);
  EXPECT_EQ(n_processes_with({{"PMIX_RANK", "0"}, {"SLURM_NTASKS", "1"}}), 1);
}

TEST(ProcessJob, MpirunDecidesInsideAnAllocationOfSlurm) {
  const auto inside = [](const std::string& size) {
    return n_processes_with({{"OMPI_COMM_WORLD_SIZE", size},
                             {"OMPI_COMM_WORLD_RANK", "0"},
                             {"PMIX_RANK", "0"},
                             {"SLURM_NTASKS", "8"}});
  };
  EXPECT_EQ(inside("2"), 2);
  EXPECT_EQ(inside("1"), 1);
}

}  // namespace
}  // namespace assay::cli
