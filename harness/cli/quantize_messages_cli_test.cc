// What assay quantize, inspect and others say where something is amiss: what, where, and what mends
// it.
#include <sys/mount.h>

#include <chrono>
#include <thread>

#include "harness/cli/quantize_cli_testing.h"

namespace assay {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class QuantizeMessages : public QuantizeCli {
 protected:
  // Of a folder that is to be made into something readable, whatever reads it.
  void expect_all(const fs::path& folder, const ::testing::Matcher<const std::string&>& message) {
    expect_error(assay({"inspect", folder}), message);
    expect_error(assay({"generate", "--model", folder, "hi"}), message);
    expect_error(assay({"run", "facts", "--model", folder, "--out", dir_ / "run"}), message);
    expect_error(assay({"diverge", built / "tiny", folder}), message);
  }
  fs::path copy_original() {
    fs::remove_all(dir_ / "original");
    fs::copy(built / "tiny", dir_ / "original", fs::copy_options::recursive);
    return dir_ / "original";
  }
};

TEST_F(QuantizeMessages, OnlyWhatWasDownloadedIsToBeDownloadedAgain) {
  const fs::path build = copy_quantised();
  const auto mend = AllOf(HasSubstr("assay quantize made this build: copy the file from where"),
                          HasSubstr("or delete " + build.string() + " and run the same"),
                          Not(HasSubstr("ownload")));
  fs::resize_file(build / "model-00002-of-00004.safetensors", 5000);
  expect_all(build, AllOf(HasSubstr("model-00002-of-00004.safetensors"), mend));
  expect_error(assay(arguments(build)), mend);
  fs::remove(build / "model-00002-of-00004.safetensors");
  expect_all(build, AllOf(HasSubstr("is missing"), mend));

  const fs::path original = copy_original();
  fs::resize_file(original / "model.safetensors", 5000);
  expect_all(original, AllOf(HasSubstr("model.safetensors"), HasSubstr("truncated"),
                             HasSubstr(". Download it again.")));
}

TEST_F(QuantizeMessages, ADamagedPieceOfTheStateIsMadeAnewNotDownloaded) {
  Program run(arguments(out()));
  const fs::path piece = out() / "quantize-state" / "stats-00001.safetensors";
  std::error_code ignored;
  for (int i = 0; i < 100000 && !fs::exists(piece, ignored); ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  run.kill_now();
  ASSERT_EQ(run.wait().code, -SIGKILL);
  fs::resize_file(piece, 100);
  expect_error(assay(arguments(out())),
               AllOf(HasSubstr(piece.string() + " is damaged: the header claims"),
                     HasSubstr("Delete this file: the same command makes it anew"),
                     Not(HasSubstr("ownload"))));
}

TEST_F(QuantizeMessages, ALostConfigIsMadeAgainByTheSameCommand) {
  const fs::path build = copy_quantised();
  fs::remove(build / "config.json");
  expect_all(build, AllOf(HasSubstr("a build of assay quantize that has lost its config.json"),
                          HasSubstr("run the same assay quantize again")));
  const Outcome again = assay(arguments(build));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("its config.json was missing and is made again"));
  EXPECT_EQ(files_of(build), files_of(built / "vq"));

  fs::remove(build / "config.json");
  expect_error(assay(arguments(build, {"--bits", "1.6"})), HasSubstr("of other settings"));
  const fs::path shard = build / "model-00002-of-00004.safetensors";
  patch(shard, static_cast<std::streamoff>(fs::file_size(shard)) - 9, "xxxx");
  expect_error(assay(arguments(build)), HasSubstr("a file is damaged or was changed"));
  EXPECT_FALSE(fs::exists(build / "config.json")) << "it would say that all is well";
}

TEST_F(QuantizeMessages, WhatElseIsLostIsNamedAndNothingIsOverwritten) {
  const fs::path build = copy_quantised();
  fs::remove(build / "quantisation-identity.json");
  expect_error(assay(arguments(build)),
               AllOf(HasSubstr("a finished build that lacks quantisation-identity.json, so it is "),
                     HasSubstr("delete the folder to make it anew, or choose another folder")));
  EXPECT_EQ(assay({"inspect", build}).code, 0) << "all else works without it";
  fs::remove(build / "config.json");
  expect_error(assay(arguments(build)),
               HasSubstr("lacks config.json and quantisation-identity.json"));
}

TEST_F(QuantizeMessages, InspectRefusesTensorsThatDoNotFitTheConfig) {
  const fs::path original = copy_original();
  Json config = *read_json(original / "config.json");
  const Json good = config;
  config["moe_intermediate_size"] = config["moe_intermediate_size"].get<int>() * 2;
  write(original / "config.json", config.dump());
  Outcome o = assay({"inspect", original});
  expect_error(o, AllOf(HasSubstr("the tensors do not fit config.json ("),
                        HasSubstr("model.layers.1.mlp.experts.0.gate_proj"), HasSubstr("expected"),
                        HasSubstr("more")));
  expect_error(assay({"inspect", original, "--json"}), HasSubstr("do not fit config.json"));
  EXPECT_EQ(assay({"inspect", original, "--tensors"}).code, 0) << "what is there can be listed";
  write(original / "config.json", good.dump());
  EXPECT_EQ(assay({"inspect", original}).code, 0);

  StoredTensors tensors = read_tensors(original / "model.safetensors");
  std::erase_if(tensors, [](const auto& t) { return t.first.starts_with("model.layers.2."); });
  write_tensors(original / "model.safetensors", tensors);
  expect_error(assay({"inspect", original}), HasSubstr("missing: model.layers.2."));
}

// The model is damaged too, which is found only where it is read.
TEST_F(QuantizeMessages, TheFolderToMakeIsLookedAtBeforeTheModelIsRead) {
  const fs::path original = copy_original();
  fs::resize_file(original / "model.safetensors", 5000);
  const auto into = [&](const fs::path& folder) {
    std::vector<std::string> with = arguments(folder);
    with[1] = original;
    return assay(with);
  };
  expect_error(into(out()), HasSubstr("truncated"));
  write(dir_ / "file", "mine");
  expect_error(into(dir_ / "file"), HasSubstr("is there and is not a folder"));
  write(dir_ / "full" / "notes.txt", "mine");
  expect_error(into(dir_ / "full"), HasSubstr("not an empty folder"));
  expect_error(into("/proc/assay/vq"), HasSubstr("nothing can be written in /proc: "));
  EXPECT_EQ(files_of(dir_ / "full").size(), 1u) << "nothing is left of the trial";
}

// A NaN among the values would be the first thing said once they are read.
TEST_F(QuantizeMessages, ADiskThatIsTooSmallIsSaidBeforeTheModelsValuesAreRead) {
  std::vector<std::string> with = arguments(dir_ / "small" / "out");
  with[1] = copy_original();
  StoredTensors tensors = read_tensors(dir_ / "original" / "model.safetensors");
  tensors["lm_head.weight"].bytes.replace(40, 2, "\xc0\x7f");
  write_tensors(dir_ / "original" / "model.safetensors", tensors);
  const fs::path small = dir_ / "small";
  fs::create_directories(small);
  if (mount("tmpfs", small.c_str(), "tmpfs", 0, "size=200k") != 0)
    GTEST_SKIP() << "cannot mount a small tmpfs: run as root to show this";
  const Outcome o = assay(with);
  umount(small.c_str());
  expect_error(o, AllOf(HasSubstr("0.2 MiB are free on the disk of " + small.string()),
                        HasSubstr("more at the least"), HasSubstr("another disk")));
}

TEST_F(QuantizeMessages, WhoOpensAFolderThatIsWorkedOnIsToldByWhom) {
  Program first(arguments(out()));
  std::error_code ignored;
  for (int i = 0; i < 100000 && !fs::exists(out() / "quantize-state" / "plan.json", ignored); ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  ASSERT_EQ(kill(first.pid(), SIGSTOP), 0);
  const std::string worker = "process " + std::to_string(first.pid()) + " on ";
  expect_all(out(), AllOf(HasSubstr("is an unfinished quantisation with "), HasSubstr(worker),
                          HasSubstr("is working on it: wait for it"), Not(HasSubstr("run the"))));
  ASSERT_EQ(kill(first.pid(), SIGCONT), 0);
  ASSERT_EQ(first.wait().code, 0);
  EXPECT_EQ(files_of(out()), files_of(built / "vq")) << "who asks disturbs nothing";
}

TEST_F(QuantizeMessages, AFewTokensOfCalibrationAreWarnedOf) {
  const Outcome few = assay(arguments(out()));
  ASSERT_EQ(few.code, 0) << few.err;
  EXPECT_THAT(few.err,
              AllOf(HasSubstr("warning: texts.jsonl has "), HasSubstr(" tokens in 3 texts"),
                    HasSubstr("fewer than 512 (setting shrinkage)"),
                    HasSubstr(" tokens at least are recommended")));
  fs::remove_all(out());
  const Outcome enough = assay(arguments(out(), {"--set", "shrinkage=1"}));
  ASSERT_EQ(enough.code, 0) << enough.err;
  EXPECT_THAT(enough.err, Not(HasSubstr("warning")));
}

// A set that is read by both would judge a build by what it was fitted to.
TEST_F(QuantizeMessages, DivergeWarnsOfTextsThatTheBuildWasCalibratedWith) {
  const fs::path texts = dir_ / "texts.jsonl";
  const auto judge = [&](const fs::path& build, std::vector<std::string> more = {}) {
    std::vector<std::string> all = {"diverge", built / "tiny",  build, "--texts",
                                    texts,     "--noise-texts", "0",   "--threads",
                                    "1",       "--json"};
    all.insert(all.end(), more.begin(), more.end());
    return assay(all);
  };
  const auto expect_calibrated = [](const Outcome& o, int n, int n_judged, const char* words) {
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_EQ(Json::parse(o.out).value("calibration", Json()),
              Json({{"set", "texts.jsonl"}, {"n_calibrated", n}, {"n_judged", n_judged}}));
    EXPECT_THAT(o.err, AllOf(HasSubstr("warning: the candidate was calibrated with "),
                             HasSubstr(words), HasSubstr("flatter it")));
  };
  const auto expect_unseen = [](const Outcome& o) {
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_FALSE(Json::parse(o.out).contains("calibration"));
    EXPECT_THAT(o.err, Not(HasSubstr("calibrated")));
  };
  const std::string other = R"({"lang":"en","text":"Another text, of which nothing was seen."})"
                            "\n";
  write(texts, kTexts);
  expect_calibrated(judge(built / "vq"), 3, 3, "all of these 3 texts");
  expect_calibrated(judge(built / "vq", {"--limit", "1"}), 1, 1, "this text");
  expect_unseen(judge(built / "tiny"));
  const Outcome shown = assay({"diverge", built / "tiny", built / "vq", "--texts", texts,
                               "--noise-texts", "0", "--threads", "1"});
  EXPECT_THAT(shown.out, HasSubstr("warning: the candidate was calibrated with all of these 3"));

  // A build of before texts had fingerprints is known by its counts, whatever is read of the file.
  const fs::path older = copy_quantised();
  Json report = *read_json(older / "quantisation.json");
  report["calibration"].erase("fingerprints");
  write(older / "quantisation.json", report.dump());
  expect_calibrated(judge(older), 3, 3, "all of these 3 texts");
  expect_calibrated(judge(older, {"--limit", "2"}), 2, 2, "all of these 2 texts");

  const fs::path captured = dir_ / "base.div";
  ASSERT_EQ(assay({"diverge", built / "tiny", "--save-base", captured, "--texts", texts,
                   "--noise-texts", "0"})
                .code,
            0);
  expect_calibrated(assay({"diverge", "--base", captured, built / "vq", "--json"}), 3, 3,
                    "all of these 3 texts");

  // A run's divergence suite says so in the record and at the end.
  const fs::path suite = dir_ / "suites" / "divergence";
  write(suite / "texts.jsonl", kTexts);
  write(suite / "suite.json",
        R"({"format": 1, "name": "divergence", "version": 1, "title": "Divergence",
            "measure": "divergence", "texts": "texts.jsonl", "limit": 0, "noise_texts": 0,
            "profiles": {"quick": {}}})");
  const Outcome run = assay({"run", "divergence", "--suites", dir_ / "suites", "--model",
                             built / "vq", "--base", built / "tiny", "--out", dir_ / "run"});
  EXPECT_THAT(run.out, HasSubstr("warning: the candidate was calibrated with all of these 3"));
  EXPECT_EQ((*read_json(dir_ / "run" / "run.json"))["measurements"][0]["result"]["calibration"],
            Json({{"set", "texts.jsonl"}, {"n_calibrated", 3}, {"n_judged", 3}}));

  write(texts, std::string(kTexts) + other);
  expect_calibrated(judge(built / "vq"), 3, 4, "3 of these 4 texts");
  expect_unseen(judge(older));
  write(texts, other);
  expect_unseen(judge(built / "vq"));
  write(older / "quantisation.json", "{}");
  EXPECT_THAT(judge(older).err, AllOf(HasSubstr("quantisation.json is damaged"),
                                      HasSubstr("calibrated with these texts is not known")));
}

}  // namespace
}  // namespace assay
