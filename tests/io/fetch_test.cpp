// Models, rows and checkpoints out of S3: whole or not at all, once, and nothing with a name of its own
// choice.
#include "src/io/fetch.h"

#include <gtest/gtest.h>

#include "kernels/base/error.h"
#include "src/io/file.h"
#include "src/io/json.h"
#include "src/io/manifest.h"
#include "tests/support/fake_s3.h"

namespace ptrain {
namespace {

namespace fs = std::filesystem;

class Fetch : public ::testing::Test {
 protected:
  void put(const std::string& object, const std::string& text) const {
    fs::create_directories(fake_.object(object).parent_path());
    write_text(fake_.object(object), text);
  }
  fs::path here(const std::string& name) const { return directory_.path() / name; }
  std::string text(const fs::path& path) const { return read_text(path, 1 << 20); }
  static bool all(std::string_view) { return true; }
  static bool weights(std::string_view name) { return is_model_file(name, true); }

  size_t downloads() const {
    size_t count = 0;
    for (const std::string& call : fake_.calls()) count += call.starts_with("down ");
    return count;
  }
  /// The code and the text of what is thrown.
  static std::pair<ExitCode, std::string> thrown(const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      return {error.code(), error.what()};
    }
    return {ExitCode::done, ""};
  }

  /// A checkpoint without tensors.
  void put_checkpoint(int64_t step) const {
    const fs::path path = fake_.object("b/run/checkpoints/" + fmt::format("step-{:08}", step));
    fs::create_directories(path / "state");
    write_text(path / "config.json", fmt::format("{{\"step\": {}}}", step));
    write_text(path / "state/extra.h5", "no HDF5, nobody looks");
    Manifest manifest;
    manifest.step = step;
    for (const char* name : {"config.json", "state/extra.h5"})
      manifest.files.push_back(describe_file(path, name));
    write_text(path / manifest_name, to_text(manifest));
  }
  std::vector<RemoteCheckpoint> listed() const { return list_checkpoints(s3_, checkpoints); }

  const std::string checkpoints = "s3://b/run/checkpoints";
  const FakeS3 fake_;
  const TemporaryDirectory directory_;
  const S3 s3_{find_s3_tool(fake_.search_path(), ""), {.tries = 2, .first_pause_s = 0.01}};
};

TEST_F(Fetch, AModelComesWithWhatItNeedsAndOnce) {
  put("b/m/config.json", "{}");
  put("b/m/model.safetensors", "weights");
  put("b/m/pytorch_model.bin", "never");
  put("b/m/state/x.h5", "not for a start");
  put("b/m/onnx/model.safetensors", "another one's");
  fetch_directory(s3_, "s3://b/m", here("inputs/model"), weights);
  EXPECT_EQ(text(here("inputs/model/config.json")), "{}");
  EXPECT_EQ(text(here("inputs/model/model.safetensors")), "weights");
  EXPECT_EQ(downloads(), 2u);
  fetch_directory(s3_, "s3://b/m", here("inputs/model"), weights);
  EXPECT_EQ(downloads(), 2u) << "taken as it is";
  fs::resize_file(here("inputs/model/model.safetensors"), 3);
  fetch_directory(s3_, "s3://b/m", here("inputs/model"), weights);
  EXPECT_EQ(text(here("inputs/model/model.safetensors")), "weights") << "cut short here: all again";
  put("b/other/config.json", "other");
  fetch_directory(s3_, "s3://b/other", here("inputs/model"), weights);
  EXPECT_EQ(text(here("inputs/model/config.json")), "other");
  EXPECT_FALSE(fs::exists(here("inputs/model/model.safetensors")));
}

TEST_F(Fetch, WhatIsNotThereIsToldAndNothingIsLeft) {
  const auto [code, why] = thrown([&] { fetch_directory(s3_, "s3://b/m", here("model"), all); });
  EXPECT_EQ(code, ExitCode::input);
  EXPECT_EQ(why, "s3://b/m: nothing is there");
  put("b/m/pytorch_model.bin", "x");
  EXPECT_EQ(thrown([&] { fetch_directory(s3_, "s3://b/m", here("model"), weights); }).second,
            "s3://b/m: 1 objects, but none that is needed, are there");
  EXPECT_FALSE(fs::exists(here("model")));
}

TEST_F(Fetch, AHalfIsNeverTakenForAWhole) {
  // An object that goes between the listing and the copy:
  put("b/n/a.json", "a");
  write_text(
      fake_.root() / "bin/s5cmd",
      "#!/bin/sh\ncase \"$*\" in *ls*) echo '{\"key\":\"s3://b/n/a.json\",\"size\":1}';; *) exit 1;; esac\n");
  fs::permissions(fake_.root() / "bin/s5cmd", fs::perms::owner_all);
  EXPECT_EQ(thrown([&] { fetch_directory(s3_, "s3://b/n", here("n"), all); }).first, ExitCode::resources);
  EXPECT_FALSE(fs::exists(here("n")));
}

TEST_F(Fetch, NamesThatLeaveTheDirectoryAreRefused) {
  for (const char* name : {"../../evil", "/etc/evil", ".ssh/authorized_keys", "a//b", "a\\nb"}) {
    write_text(
        fake_.root() / "bin/s5cmd",
        fmt::format(
            "#!/bin/sh\ncase \"$*\" in *ls*) printf '%s\\n' '{{\"key\":\"s3://b/m/{}\",\"size\":1}}';; "
            "*) touch {}; for last; do :; done; echo x > \"$last\";; esac\n",
            name, here("was_copied").string()));
    fs::permissions(fake_.root() / "bin/s5cmd", fs::perms::owner_all);
    EXPECT_EQ(thrown([&] { fetch_directory(s3_, "s3://b/m", here("model"), all); }).first, ExitCode::input)
        << name;
    EXPECT_FALSE(fs::exists(here("was_copied"))) << name;
  }
}

TEST_F(Fetch, RowsComeByPatternAndOnce) {
  for (const char* name : {"train-1.jsonl", "train-2.jsonl", "test.jsonl", "deep/train-3.jsonl"})
    put(std::string("b/data/") + name, name);
  const auto paths = fetch_files(s3_, "s3://b/data/train-*.jsonl", here("rows"));
  EXPECT_EQ(paths, (std::vector<fs::path>{here("rows/train-1.jsonl"), here("rows/train-2.jsonl")}));
  EXPECT_EQ(text(paths[1]), "train-2.jsonl");
  fetch_files(s3_, "s3://b/data/train-*.jsonl", here("rows"));
  EXPECT_EQ(downloads(), 2u);
  EXPECT_EQ(fetch_files(s3_, "s3://b/data/test.jsonl", here("rows")).size(), 1u);
  EXPECT_EQ(thrown([&] { fetch_files(s3_, "s3://b/data/none-*", here("rows")); }).first, ExitCode::input);
}

TEST_F(Fetch, PatternsAreInTheLastPartAlone) {
  EXPECT_EQ(s3_pattern("s3://b/data/*.jsonl", "k").place, "s3://b/data");
  for (const char* bad :
       {"s3://b/*/x.jsonl", "s3://b/data/", "s3://b/da ta/x", "s3://b/data/[ab].jsonl", "s3://"})
    EXPECT_EQ(thrown([&] { s3_pattern(bad, "k"); }).first, ExitCode::usage) << bad;
}

TEST_F(Fetch, CheckpointsWithAManifestAreListedAndCome) {
  EXPECT_TRUE(listed().empty());
  for (const int64_t step : {10, 20, 30}) put_checkpoint(step);
  fs::remove(fake_.object("b/run/checkpoints/step-00000030/MANIFEST.json"));  // on its way up when it ended
  put("b/run/checkpoints/step-x/MANIFEST.json", "foreign");
  EXPECT_EQ(listed(), (std::vector<RemoteCheckpoint>{{20, 1}, {10, 1}}));
  fetch_part(s3_, checkpoints, {20, 1}, 0, here("checkpoints/step-00000020"));
  EXPECT_EQ(open_manifest(here("checkpoints/step-00000020")).step, 20);
  EXPECT_FALSE(fs::exists(here("checkpoints/.tmp-step-00000020")));
}

TEST_F(Fetch, PartsCountWhenAllOfThemAreThere) {
  const std::string step = "b/run/checkpoints/step-00000040/";
  put(step + "part-0-of-2/MANIFEST.json", "m");
  put(step + "part-0-of-2/model.safetensors", "w");
  EXPECT_TRUE(listed().empty());
  put(step + "part-1-of-2/MANIFEST.json", "m");
  EXPECT_EQ(listed(), (std::vector<RemoteCheckpoint>{{40, 2}}));
  put("b/run/checkpoints/step-00000050/part-0-of-999999999/MANIFEST.json", "m");
  put("b/run/checkpoints/step-00000050/part-0-of-x/MANIFEST.json", "m");
  EXPECT_EQ(listed(), (std::vector<RemoteCheckpoint>{{40, 2}}));
  EXPECT_EQ(remote_name("step-00000040", 1, 2), "step-00000040/part-1-of-2");
}

TEST_F(Fetch, ADamagedCheckpointIsRefusedAndNothingOfItStays) {
  put_checkpoint(20);
  put("b/run/checkpoints/step-00000020/config.json", "{\"step\": 21}");
  const auto [code, why] = thrown([&] {
    fetch_part(s3_, checkpoints, {20, 1}, 0, here("checkpoints/step-00000020"));
  });
  EXPECT_EQ(code, ExitCode::input);
  EXPECT_TRUE(why.starts_with("s3://b/run/checkpoints/step-00000020 is not whole")) << why;
  EXPECT_FALSE(fs::exists(here("checkpoints/step-00000020")));
}

}  // namespace
}  // namespace ptrain
