#include "harness/run_folder.h"

#include "harness/record.h"
#include "harness/steps.h"

namespace assay::harness {

Result<RunFolder> read_run(const std::string& folder) {
  RunFolder out{folder, {}, {}};
  ASSAY_TRY(out.run, read_run_json(folder));
  const fs::path samples = fs::path(folder) / kSamplesFile, steps = fs::path(folder) / kStepsFile;
  ASSAY_TRY(const std::string text, read_file(samples));
  ASSAY_TRY(SampleLines lines, parse_sample_lines(text, samples.string()));
  out.samples = std::move(lines.samples);
  std::error_code ignored;
  if (!fs::exists(steps, ignored)) return out;
  ASSAY_TRY(const std::string bytes, read_file(steps));
  ASSAY_TRY(StepFrames frames, decode_steps(bytes, steps.string()));
  for (Sample& sample : out.samples)
    if (const auto found = frames.by_key.find(sample.key()); found != frames.by_key.end())
      sample.steps = std::move(found->second);
  return out;
}

}  // namespace assay::harness
