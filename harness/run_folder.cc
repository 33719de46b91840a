#include "harness/run_folder.h"

#include "base/shell_quoted.h"
#include "harness/record.h"
#include "harness/steps.h"

namespace assay::harness {

Json RunFolder::describe() const {
  return {{"folder", folder},
          {"identity", run.at("identity")},
          {"commit", run.at("provenance").at("commit")},
          {"samples", run.at("samples").at("hash")}};
}

Result<RunFolder> read_run(const fs::path& folder) {
  RunFolder out{folder.string(), {}, {}};
  ASSAY_TRY(out.run, read_run_json(folder));
  const fs::path file = folder / kSamplesFile;
  if (!is_there(file))
    return fail(
        "{}: there is no such file, and it is where a run's replies are: assay run --resume {} "
        "asks for all of them again.",
        file.string(), shell_quoted(folder.string()));
  ASSAY_TRY(const std::string text, read_file(file));
  ASSAY_TRY(SampleLines lines, parse_sample_lines(text, file.string()));
  out.samples = std::move(lines.samples);
  if (out.complete()) {
    const auto n = out.run.at("samples").at("n").get<std::size_t>();
    if (out.samples.size() != n)
      return fail(
          "{}: run.json counts {} samples, found {} whole lines{}. The file is damaged: assay run "
          "--resume {} drops a torn line and asks again what is missing.",
          file.string(), n, out.samples.size(),
          lines.n_bytes < text.size() ? " and a torn one" : "", shell_quoted(folder.string()));
  }
  const fs::path steps = folder / kStepsFile;
  if (!is_there(steps)) return out;  // format 1 had none of most suites
  ASSAY_TRY(const std::string bytes, read_file(steps));
  ASSAY_TRY(StepFrames frames, decode_steps(bytes, steps.string()));
  for (Sample& sample : out.samples)
    if (const auto found = frames.by_key.find(sample.key()); found != frames.by_key.end())
      sample.steps = std::move(found->second);
  return out;
}

}  // namespace assay::harness
