// assay quantize and calibrate as a user meets them, and what generate and inspect say of the
// quantised checkpoints that were damaged afterwards.
#include <sys/mount.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "harness/cli/quantize_cli_testing.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(QuantizeCli, WritesWhatInspectAndGenerateRead) {
  const Outcome o = assay({"inspect", built / "vq"});
  ASSERT_EQ(o.code, 0) << o.err;
  for (const char* what :
       {"quantised: routed experts", "numbered 0 to 2", "of padding", "layer 1",
        "layout: auto-round (quant_method in config.json): how the files are",
        "laid out, not who made them; quantisation.json is of assay quantize", "vq_codes", "gptq"})
    EXPECT_THAT(o.out, HasSubstr(what));
  const Json json = Json::parse(assay({"inspect", built / "vq", "--json"}).out);
  EXPECT_EQ(json["n_parameters"],
            Json::parse(assay({"inspect", built / "tiny", "--json"}).out)["n_parameters"]);
  const Outcome reply = assay({"generate", "--model", built / "vq", "--max-tokens", "3", "hi"});
  EXPECT_EQ(reply.code, 0) << reply.err;
  const Json report = *read_json(built / "vq" / "quantisation.json");
  EXPECT_LE(report["expert_bits"]["code"].get<double>(), 1.5);
  EXPECT_EQ(report["calibration"]["set"], "texts.jsonl");
  EXPECT_NEAR(report["expert_bits"]["total"].get<double>(),
              json["quantisation"]["routed_total_bits"].get<double>(), 1e-9);
}

TEST_F(QuantizeCli, TheLogSaysWhatMemoryEachFinishedLayerTook) {
  const Outcome shown = assay(arguments(out()));
  ASSERT_EQ(shown.code, 0) << shown.err;
  for (const char* line :
       {"focus        layer 2 (of 0 to 2) done: ", "statistics   layer 1 (of 0 to 2) done: ",
        "encoding     what is in no layer done: ", "0 of 3 layers done in round 1 of 2",
        "3 of 3 layers done in round 2 of 2, and what is in no layer", "MiB resident",
        "mapped files; peak "})
    EXPECT_THAT(shown.err, HasSubstr(line));
  for (const char* stage : {"codebook of tier 1, first centres 0/256",
                            "codebook of tier 2, iteration 0/50", "errors of tiers, module 0/"})
    EXPECT_THAT(shown.err, HasSubstr(stage));
  EXPECT_THAT(shown.out, AllOf(HasSubstr("memory: at most"), Not(HasSubstr("in this process")),
                               HasSubstr("MiB of files"), HasSubstr("measured ÷ predicted")));
  fs::remove_all(out());
  const Outcome o = assay(arguments(out(), {"--json"}));
  ASSERT_EQ(o.code, 0) << o.err;
  const Json memory = Json::parse(o.out)["memory"];
  ASSERT_EQ(memory.size(), 3u + 3u + 2u * 4u) << "focus, statistics, two rounds with ends";
  for (const Json& layer : memory) {
    EXPECT_GT(layer["resident_bytes"], layer["mapped_bytes"]);
    EXPECT_GE(layer["peak_bytes"], layer["resident_bytes"]);
  }
  EXPECT_FALSE(read_json(out() / "quantisation.json")->contains("memory"))
      << "every run's is equal";
}

TEST_F(QuantizeCli, ABadCalibrationFileIsNamedWithItsLine) {
  const fs::path file = dir_ / "set.jsonl";
  const auto with = [&](std::string_view text) {
    write(file, text);
    return assay(arguments(out(), {"--calibration", file}));
  };
  const std::string good = R"({"text":"abc"})"
                           "\n";
  expect_refused(assay(arguments(out(), {"--calibration", dir_ / "none.jsonl"})),
                 HasSubstr("none.jsonl"));
  // The line once, and the column in it.
  expect_refused(with("not JSON\n"), HasSubstr("set.jsonl:1:2: not valid JSON"));
  expect_refused(with(good + "{\"text\":\n"), HasSubstr("set.jsonl:2:9: not valid JSON"));
  expect_refused(with(""), AllOf(HasSubstr("set.jsonl"), HasSubstr("no text in it")));
  expect_refused(with("\n \n"), HasSubstr("no text in it"));
  expect_refused(with(good + "{\"lang\":\"ja\"}\n"),
                 AllOf(HasSubstr("set.jsonl:2"), HasSubstr("messages")));
  expect_refused(with("[1]\n"),
                 AllOf(HasSubstr("one JSON array"), HasSubstr("JSON object a line")));
  expect_refused(with("\n [\n  {\"text\": \"abc\"}\n]\n"),
                 AllOf(HasSubstr("set.jsonl"), HasSubstr("one JSON array"), HasSubstr("jq")));
  expect_refused(with("{\"text\":7}\n"), HasSubstr("text is not a string"));
  expect_refused(with("{\"messages\":\"hi\"}\n"), HasSubstr("not a list"));
  expect_refused(with("{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n"),
                 AllOf(HasSubstr("set.jsonl: text 1"), HasSubstr("assay calibrate")));
  expect_refused(with("{\"messages\":[\"hi\"],\"reply\":\"x\"}\n"), HasSubstr("set.jsonl"));
  expect_refused(with("{\"messages\":[{\"role\":\"user\",\"content\":{}}],\"reply\":\"x\"}\n"),
                 AllOf(HasSubstr("set.jsonl"), HasSubstr("content")));
  expect_refused(with("{\"text\":\"a\",\"thinking\":1}\n"), HasSubstr("thinking"));
  expect_refused(with("{\"text\":\"\xff\"}\n"), HasSubstr("set.jsonl:1"));
  expect_refused(with(good + "{\"text\":\"" + std::string(4000, '7') + "\"}\n"),
                 AllOf(HasSubstr("calibration text 2"), HasSubstr("expected 1 to 512")));
}

TEST_F(QuantizeCli, SettingsThatDoNotExistAreNamedWithThoseThatDo) {
  const auto with = [&](const std::vector<std::string>& more) {
    return assay(arguments(out(), more));
  };
  expect_refused(with({"--recipe", "ja-1.17"}), HasSubstr("ja-1.71 or arith-1.86"));
  expect_refused(with({"--tiers", "1,4"}), AllOf(HasSubstr("'4'"), HasSubstr("1, 1.5, 2, 3")));
  expect_refused(with({"--uniform", "9"}), HasSubstr("1, 1.5, 2, 3"));
  expect_refused(with({"--uniform", "2"}), HasSubstr("--uniform 2 beside --bits 1.5"));
  expect_refused(with({"--spine-bits", "5"}), HasSubstr("expected 4, 8 or 16"));
  expect_refused(with({"--bits", "1.2", "--tiers", "1.5,2"}),
                 AllOf(HasSubstr("1.2 code bits"), HasSubstr("1.5 (tier 1.5)")));
  expect_refused(with({"--bits", "2.5"}),
                 AllOf(HasSubstr("2.5 code bits"), HasSubstr("2 (tier 2)")));
  expect_refused(with({"--bits", "many"}), HasSubstr("--bits"));
  expect_refused(with({"--set", "group=0"}), HasSubstr("setting group: got '0'"));
  expect_refused(with({"--set", "group=12"}), HasSubstr("a multiple of d = 8"));
  expect_refused(with({"--set", "group=1.5"}), HasSubstr("an integer from 1"));
  expect_refused(with({"--set", "kv_a_bits=5"}), HasSubstr("expected 4, 8 or 16"));
  expect_refused(with({"--set", "damping="}), HasSubstr("setting damping: got ''"));
  expect_refused(with({"--set", "focus"}),
                 AllOf(HasSubstr("setting 'focus' has no value, expected focus=0.5"),
                       HasSubstr("a number from 0 to 1")));
  expect_refused(with({"--set", "groups=12"}),
                 AllOf(HasSubstr("unknown setting 'groups'"), HasSubstr("Did you mean 'group'?"),
                       HasSubstr("--help lists them all")));
  expect_refused(with({"--set", "qqqqqqqqqq=12"}),
                 AllOf(HasSubstr("Known: group, spine_group, "), HasSubstr(" and 12 more.")));
  expect_refused(with({"--set", "damping=0.1", "--set", "temper=1", "--set", "damping=0.2"}),
                 HasSubstr("--set damping=0.1 and --set damping=0.2: one setting, given twice"));
  expect_refused(with({"--set", "kept_sample=99"}),
                 AllOf(HasSubstr("setting kept_sample: got 99, expected 0 to 4"),
                       HasSubstr("a layer of this model has so many experts")));
  expect_refused(with({"--set", "spine_group=7"}),
                 HasSubstr("setting spine_group: got '7', expected a multiple of 8 from 8 to 1,0"));
  expect_refused(with({"--set", "shrinkage=1e12"}),
                 HasSubstr("got '1e12', expected a number from 0 to 1,073,741,824"));
  expect_refused(with({"--set", "beam=3"}), HasSubstr("expected 1, 2, 4, 8, 16, 32 or 64"));
  for (const char* bits : {"1.71x", "nan", "0.9", "3.1"})
    expect_refused(with({"--bits", bits}), HasSubstr(std::string("--bits: got ") + bits +
                                                     ", expected a number from 1 to 3."));
  expect_refused(with({"--threads", "-1"}), HasSubstr("--threads: got -1, expected a whole"));
  expect_refused(with({"--tiers", "1,1"}), HasSubstr("tier '1' is named twice"));
  expect_refused(with({"--set", "damping=-1"}), HasSubstr("a number from 1e-06 to 10"));
}

// Whatever set() takes is listed, and with the default that it has.
TEST_F(QuantizeCli, HelpListsEverySettingWithRangeDefaultAndMeaning) {
  const Outcome o = assay({"quantize", "--help"});
  ASSERT_EQ(o.code, 0);
  const Json recipe = (*read_json(built / "vq" / "quantisation.json"))["recipe"];
  for (const char* name : {"group", "damping", "shrinkage", "focus", "temper", "n_descents"})
    EXPECT_THAT(o.out, ::testing::ContainsRegex(std::string("\n +") + name + " +an? [^\n]*\\(" +
                                                recipe[name].dump().substr(0, 3) + "[^\n]*\\): "))
        << name;
  const std::string settings = o.out.substr(o.out.find("\nSettings, --set NAME=VALUE"));
  EXPECT_EQ(std::count(settings.begin(), settings.end(), '\n'), 3 + 24);
  EXPECT_THAT(o.out, HasSubstr("so 1 to 3; scales")) << "the range that --bits has";
  EXPECT_THAT(o.out,
              HasSubstr("beam                   1, 2, 4, 8, 16, 32 or 64 (1): codings of a row"));
}

TEST_F(QuantizeCli, AnOutputFolderIsNeverOverwritten) {
  write(dir_ / "file", "mine");
  expect_error(assay(arguments(dir_ / "file")), AllOf(HasSubstr("file"), HasSubstr("overwritten")));
  expect_error(assay(arguments(dir_ / "file" / "below")), HasSubstr("file/below"));
  EXPECT_EQ(*read_file(dir_ / "file"), "mine");
  expect_error(assay(arguments("")), HasSubstr("argument 2 is empty"));
  write(dir_ / "full" / "notes.txt", "mine");
  expect_error(assay(arguments(dir_ / "full")), HasSubstr("overwritten"));
  EXPECT_EQ(files_of(dir_ / "full"), (std::map<std::string, std::string>{{"notes.txt", "mine"}}));
  const auto tiny = files_of(built / "tiny");
  expect_error(assay(arguments(built / "tiny")), HasSubstr("overwritten"));
  EXPECT_EQ(files_of(built / "tiny"), tiny);
}

TEST_F(QuantizeCli, AFinishedFolderIsSaidToBeDoneOrToBeOfOtherSettings) {
  const fs::path finished = copy_quantised();
  const Outcome again = assay(arguments(finished));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, AllOf(HasSubstr("is finished already"),
                               HasSubstr("assay inspect " + finished.string())));
  const Outcome json = assay(arguments(finished, {"--json"}));
  EXPECT_EQ(Json::parse(json.out), *read_json(finished / "quantisation.json"));
  expect_error(assay(arguments(finished, {"--bits", "1.6", "--set", "temper=0.5"})),
               AllOf(HasSubstr("is finished, and of other settings"),
                     HasSubstr("bits 1.5 there, 1.6 asked for"),
                     HasSubstr("temper 0.75 there, 0.5 asked for"), HasSubstr("overwritten")));
  write(dir_ / "other.jsonl", kTexts.substr(0, kTexts.find('\n') + 1));
  expect_error(assay(arguments(finished, {"--calibration", dir_ / "other.jsonl"})),
               AllOf(HasSubstr("calibration texts.jsonl of 3 texts"),
                     HasSubstr("there, other.jsonl of 1 texts"), Not(HasSubstr("bits"))));
  EXPECT_EQ(files_of(finished), files_of(built / "vq"));
}

TEST_F(QuantizeCli, AModelThatCannotBeQuantisedIsNamed) {
  auto with = arguments(out());
  with[1] = built / "vq";
  expect_refused(assay(with), AllOf(HasSubstr("quantised already"), HasSubstr("original")));
  with[1] = dir_ / "nowhere";
  expect_refused(assay(with), AllOf(HasSubstr("nowhere"), HasSubstr("checkpoint folder")));
  fs::copy(built / "tiny", dir_ / "damaged", fs::copy_options::recursive);
  with[1] = dir_ / "damaged";
  const fs::path weights = dir_ / "damaged" / "model.safetensors";
  StoredTensors tensors = read_tensors(weights);
  tensors["lm_head.weight"].bytes.replace(40, 2, "\xc0\x7f");
  write_tensors(weights, tensors);
  expect_refused(assay(with), AllOf(HasSubstr("lm_head.weight"), HasSubstr("NaN")));
  tensors.erase("lm_head.weight");
  write_tensors(weights, tensors);
  expect_refused(assay(with), HasSubstr("lm_head.weight"));
}

TEST_F(QuantizeCli, KilledAtAnyStageTheSameCommandGoesOnToTheSameBytes) {
  const auto whole = files_of(built / "vq");
  const std::string state = "quantize-state/";
  for (const std::string& seen :
       {state + "identity.json", state + "stats-00001.safetensors", state + "codebook-00000.json",
        state + "codebook-00001.json", state + "errors-00001.json", state + "plan.json",
        state + "round-0/layer-00000.safetensors", state + "round-0/layer-00002.safetensors",
        state + "round-1/codebooks.safetensors", state + "round-1/layer-00001.safetensors"}) {
    fs::remove_all(out());
    Program run(arguments(out()));
    std::error_code ignored;
    for (int i = 0; i < 100000 && !fs::exists(out() / seen, ignored); ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    run.kill_now();
    ASSERT_EQ(run.wait().code, -SIGKILL) << "it finished before it could be killed: " << seen;
    EXPECT_FALSE(fs::exists(out() / "config.json")) << "unfinished, so no checkpoint: " << seen;
    for (const Outcome& o :
         {assay({"inspect", out()}), assay({"generate", "--model", out(), "hi"})})
      expect_error(o,
                   AllOf(HasSubstr("is an unfinished quantisation with "),
                         HasSubstr(seen.starts_with(state + "round-") ? "of 3 layers done in round"
                                                                      : "layer"),
                         HasSubstr("run the same assay quantize again")));
    const Outcome other = assay(arguments(out(), {"--bits", "1.6"}));
    expect_error(other, AllOf(HasSubstr("unfinished work of other settings"),
                              HasSubstr("bits 1.5 there, 1.6 asked for")));
    const Outcome resumed = assay(arguments(out()));
    ASSERT_EQ(resumed.code, 0) << seen << resumed.err;
    EXPECT_THAT(resumed.out, HasSubstr("resident in this process, which went on"));
    EXPECT_EQ(files_of(out()), whole) << seen;
  }
}

TEST_F(QuantizeCli, ASecondProcessOfTheSameFolderIsToldWhoWorksThere) {
  const fs::path state = out() / "quantize-state";
  Program first(arguments(out()));
  std::error_code ignored;
  for (int i = 0; i < 100000 && !fs::exists(state / "plan.json", ignored); ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  ASSERT_EQ(kill(first.pid(), SIGSTOP), 0);
  const auto before = files_of(out());
  expect_error(assay(arguments(out())),
               AllOf(HasSubstr("is being worked on by process " + std::to_string(first.pid())),
                     HasSubstr("choose another folder"), Not(HasSubstr("goes on from there"))));
  EXPECT_EQ(files_of(out()), before);
  ASSERT_EQ(kill(first.pid(), SIGCONT), 0);
  ASSERT_EQ(first.wait().code, 0);
  EXPECT_EQ(files_of(out()), files_of(built / "vq"));
}

TEST_F(QuantizeCli, InterruptedItSaysHowFarItCameAndGoesOnToTheSameBytes) {
  const auto whole = files_of(built / "vq");
  const std::string state = "quantize-state/";
  bool is_sigterm = false;
  for (const std::string& seen :
       {state + "uncertainty.safetensors", state + "stats-00002.safetensors",
        state + "codebook-00000.json", state + "codebook-00001.json", state + "plan.json",
        state + "round-0/layer-00000.json", state + "round-1"}) {
    fs::remove_all(out());
    Program run(arguments(out()));
    std::error_code ignored;
    for (int i = 0; i < 100000 && !fs::exists(out() / seen, ignored); ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    is_sigterm ? run.terminate() : run.interrupt();
    is_sigterm = !is_sigterm;
    const Outcome o = run.wait();
    ASSERT_EQ(o.code, 130) << seen << o.err;
    EXPECT_THAT(o.out, IsEmpty());
    const std::string begin = "assay quantize: interrupted with ";
    const auto at = o.err.find(begin);
    ASSERT_NE(at, std::string::npos) << o.err;
    const std::string far =
        o.err.substr(at + begin.size(), o.err.find(';', at) - at - begin.size());
    EXPECT_THAT(
        far, HasSubstr(seen.starts_with(state + "round-") ? "of 3 layers done in round" : "layer"));
    EXPECT_THAT(o.err, AllOf(HasSubstr("keeps what is finished. Run the same command again"),
                             HasSubstr(" quantize " + (built / "tiny").string() + " " +
                                       out().string() + " --"),
                             HasSubstr("What begins anew: "), Not(HasSubstr("error:"))));
    expect_error(assay({"inspect", out()}), HasSubstr("unfinished quantisation with " + far + ":"));
    const Outcome resumed = assay(arguments(out()));
    ASSERT_EQ(resumed.code, 0) << seen << resumed.err;
    EXPECT_EQ(files_of(out()), whole) << seen;
  }
}

TEST_F(QuantizeCli, AFileBeyondItsLimitLosesNothingThatWasFinished) {
  const auto whole = files_of(built / "vq");
  for (const rlim_t n_bytes : {1000, 5000, 20000, 100000}) {  // … a file
    Program run(arguments(out(), {"--json"}), n_bytes);       // what it says goes to a file too
    expect_error(run.wait(), AllOf(HasSubstr("cannot write"), HasSubstr("File too large"),
                                   HasSubstr("the same command goes on from there")));
    EXPECT_FALSE(fs::exists(out() / "config.json"));
    for (const auto& [name, bytes] : files_of(out()))
      EXPECT_THAT(name, Not(HasSubstr(".tmp"))) << "a half-written file stays behind";
  }
  const Outcome resumed = assay(arguments(out()));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(files_of(out()), whole);
}

// Something else fills the disk at some moment of the work.
TEST_F(QuantizeCli, AFullDiskLosesNothingThatWasFinished) {
  const auto whole = files_of(built / "vq");
  std::size_t n_before = 0;
  for (const char* seen : {"identity.json", "codebook-00000.json", "round-0"}) {
    const fs::path small = dir_ / "small";
    fs::create_directories(small);
    if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=4m") != 0)
      GTEST_SKIP() << "cannot mount a small tmpfs (" << std::strerror(errno)
                   << "): run as root to show this";
    Program run(arguments(small / "out"));
    std::error_code ignored;
    for (int i = 0; i < 100000 && !fs::exists(small / "out/quantize-state" / seen, ignored); ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    kill(run.pid(), SIGSTOP);
    write(small / "ballast", std::string(4 << 20, 'x'));  // as much of it as there is room for
    kill(run.pid(), SIGCONT);
    const Outcome full = run.wait();
    fs::remove_all(out());
    fs::copy(small / "out", out(), fs::copy_options::recursive);
    umount(small.c_str());
    expect_error(full, AllOf(HasSubstr("cannot write"), HasSubstr("No space left"),
                             HasSubstr("the same command goes on from there")));
    EXPECT_FALSE(fs::exists(out() / "config.json")) << seen;
    const auto kept = files_of(out() / "quantize-state");
    EXPECT_GT(kept.size(), n_before) << seen << ": more is kept of longer work";
    n_before = kept.size();
    const Outcome resumed = assay(arguments(out()));
    ASSERT_EQ(resumed.code, 0) << seen << resumed.err;
    EXPECT_EQ(files_of(out()), whole) << seen;
  }
}

TEST_F(QuantizeCli, ADamagedQuantisedCheckpointIsNamedNotRead) {
  const std::string expert = "model.layers.1.mlp.experts.2.up_proj";
  const auto shard_of = [&](const fs::path& folder, const std::string& tensor) {
    return folder / (*read_json(folder / "model.safetensors.index.json"))["weight_map"]
                        .at(tensor)
                        .get<std::string>();
  };
  const auto after = [&](const std::string& tensor, const auto& change) {
    fs::path folder = copy_quantised();
    const fs::path shard = shard_of(folder, tensor);
    StoredTensors tensors = read_tensors(shard);
    change(tensors);
    write_tensors(shard, tensors);
    return folder;
  };
  const auto expect_both = [&](const fs::path& folder,
                               const ::testing::Matcher<const std::string&>& message) {
    expect_error(assay({"inspect", folder}), message);
    expect_error(assay({"generate", "--model", folder, "hi"}), message);
  };

  expect_both(
      after(expert + ".vq_codes",
            [&](StoredTensors& t) {  // a word too few in every row
              StoredTensor& codes = t.at(expert + ".vq_codes");
              codes.shape[1] -= 1;
              codes.bytes.resize(static_cast<std::size_t>(codes.shape[0] * codes.shape[1] * 4));
            }),
      HasSubstr(expert + ".vq_codes"));
  expect_both(
      after(expert + ".vq_scales", [&](StoredTensors& t) { t.erase(expert + ".vq_scales"); }),
      HasSubstr(expert));
  expect_error(assay({"generate", "--model",
                      after(expert + ".vq_scales",
                            [&](StoredTensors& t) {
                              t.at(expert + ".vq_scales").bytes.replace(4, 2, "\x01\x7e");
                            }),
                      "hi"}),
               AllOf(HasSubstr(expert + ".vq_scales"), HasSubstr("NaN")));

  // Another code is as valid as the one that was written: only the fingerprint tells.
  expect_both(after(expert + ".vq_codes",
                    [&](StoredTensors& t) { t.at(expert + ".vq_codes").bytes[5] ^= 4; }),
              AllOf(HasSubstr("fingerprint"), HasSubstr("quantisation.json")));

  fs::path folder = copy_quantised();
  const fs::path books = folder / "vq_codebooks.safetensors";
  StoredTensors codebooks = read_tensors(books);
  codebooks.at("cb1").shape[0] -= 1;
  codebooks.at("cb1").bytes.resize(255 * 8 * 2);
  write_tensors(books, codebooks);
  expect_both(folder, AllOf(HasSubstr("vq_codebooks.safetensors"), HasSubstr("256")));
  fs::remove(books);
  expect_both(folder, HasSubstr("vq_codebooks.safetensors"));

  folder = copy_quantised();
  fs::resize_file(shard_of(folder, expert + ".vq_codes"), 5000);
  expect_both(folder, HasSubstr("model-00002-of-00004.safetensors"));
  fs::remove(shard_of(folder, expert + ".vq_codes"));
  expect_both(folder, HasSubstr("model-00002-of-00004.safetensors"));
  Json index = *read_json(folder / "model.safetensors.index.json");
  const Json weight_map = index["weight_map"];
  for (const auto& [name, shard] : weight_map.items())
    if (shard == "model-00002-of-00004.safetensors") index["weight_map"].erase(name);
  write(folder / "model.safetensors.index.json", index.dump());
  expect_both(folder, HasSubstr("model.layers.1."));

  folder = copy_quantised();
  Json config = *read_json(folder / "config.json");
  config["quantization_config"]["extra_config"][expert]["bits"] = 3;
  write(folder / "config.json", config.dump());
  expect_both(folder, HasSubstr(expert));
  config["quantization_config"]["quant_method"] = "awq";
  write(folder / "config.json", config.dump());
  expect_both(folder, HasSubstr("awq"));
}

TEST_F(QuantizeCli, CalibrateRefusesBeforeItGenerates) {
  const fs::path prompts = dir_ / "prompts.jsonl", set = dir_ / "set.jsonl";
  const auto with = [&](std::string_view text, const fs::path& to) {
    write(prompts, text);
    return assay({"calibrate", "--model", built / "tiny", "--prompts", prompts, "--out", to,
                  "--max-tokens", "4"});
  };
  const auto expect_nothing = [&](const Outcome& o,
                                  const ::testing::Matcher<const std::string&>& message) {
    expect_error(o, message);
    EXPECT_FALSE(fs::exists(set));
  };
  const std::string ask = R"({"messages":[{"role":"user","content":"hi"}]})"
                          "\n";
  expect_nothing(with("not JSON\n", set), HasSubstr("prompts.jsonl:1"));
  expect_nothing(with("", set), HasSubstr("no text in it"));
  expect_nothing(with(ask + "{\"text\":\"abc\"}\n", set),
                 AllOf(HasSubstr("prompts.jsonl"), HasSubstr("text 2"), HasSubstr("messages")));
  expect_nothing(with(ask + "{\"messages\":[{\"content\":{}}]}\n", set),
                 AllOf(HasSubstr("prompts.jsonl"), HasSubstr("text 2")));
  expect_nothing(
      with("{\"messages\":[{\"role\":\"user\",\"content\":\"" + std::string(4000, '7') + "\"}]}\n",
           set),
      AllOf(HasSubstr("text 1"), HasSubstr("512 positions")));
  expect_nothing(with(ask, dir_ / "nowhere" / "set.jsonl"), HasSubstr("there is no folder"));
  expect_nothing(with(ask, dir_), HasSubstr("is a folder"));
  expect_nothing(with(ask, prompts), HasSubstr("is the file of --prompts"));
  expect_nothing(with(ask, dir_ / "set.jsonl.gz"), HasSubstr("leave .gz out"));
  EXPECT_EQ(*read_file(prompts), ask);
  expect_nothing(with(ask, set), AllOf(HasSubstr("nothing is written"), HasSubstr("--max-tokens")));
  // As calibrate writes it: it may be replaced, and is not by nothing.
  const std::string earlier =
      R"({"id":"1","lang":"en","messages":[{"role":"user","content":"hi"}],"reply":"x</think>yes"})"
      "\n";
  write(set, earlier);
  expect_error(with(ask, set), AllOf(HasSubstr("nothing is written"), HasSubstr("--max-tokens")));
  EXPECT_EQ(*read_file(set), earlier);
  // Texts that somebody else answered look the same, and are not these prompts'.
  const std::string texts =
      *read_text_file(std::string(ASSAY_SOURCE_DIR) + "/suites/divergence/texts.jsonl.gz");
  write(set, texts);
  expect_error(with(ask, set), HasSubstr("nothing is overwritten"));
  EXPECT_EQ(*read_file(set), texts);
}

}  // namespace
}  // namespace assay
