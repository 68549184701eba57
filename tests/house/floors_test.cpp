// Floors and doors: no include points up, and each third-party library is included by its door alone.
#include <gtest/gtest.h>

#include <set>

#include "tests/house/tree.h"

namespace ptrain::house {
namespace {

const std::filesystem::path root = PTRAIN_SOURCE;

/// What a folder may include besides itself; entries are folders or files, as prefixes.
struct Floor {
  std::string folder;
  std::vector<std::string> below;
};

const std::vector<std::string> io_and_below = {"src/io/", "parallel/", "kernels/ops/", "kernels/base/"};
const std::vector<std::string> model_and_below = {"src/model/", "src/data/",    "src/io/",
                                                  "parallel/",  "kernels/ops/", "kernels/base/"};

const Floor floors[] = {
    {"kernels/base/", {}},
    {"kernels/ops/", {"kernels/base/"}},
    {"kernels/cpu/", {"kernels/ops/", "kernels/base/"}},
    {"kernels/cuda/", {"kernels/ops/", "kernels/base/"}},
    {"kernels/dispatch/", {"kernels/cpu/", "kernels/cuda/", "kernels/ops/", "kernels/base/"}},
    {"parallel/plan/", {"kernels/base/error.h", "kernels/base/shape.h", "kernels/base/dtype.h"}},
    {"parallel/comm/", {"parallel/plan/", "kernels/ops/", "kernels/base/"}},
    {"parallel/run/", {"parallel/comm/", "parallel/plan/", "kernels/ops/", "kernels/base/"}},
    {"src/io/", {"parallel/", "kernels/ops/", "kernels/base/"}},
    {"src/model/", io_and_below},
    {"src/data/", io_and_below},
    {"src/infer/", model_and_below},
    {"src/convert/", model_and_below},
    {"src/train/",
     {"src/infer/", "src/convert/", "src/model/", "src/data/", "src/io/", "parallel/", "kernels/ops/",
      "kernels/base/"}},
    {"launch/", {"src/", "parallel/", "kernels/ops/", "kernels/base/"}},
};

/// Which files may include a third-party header; headers are prefixes, files too.
struct Door {
  std::string header;
  std::vector<std::string> files;
};

const Door doors[] = {
    {"fmt/", {""}},
    {"mpi.h", {"parallel/comm/mpi_door.h"}},
    {"nccl.h", {"parallel/comm/nccl_door.cpp"}},
    {"hdf5.h", {"src/io/hdf5.cpp"}},
    {"yaml-cpp/", {"src/train/yaml_door.cpp"}},
    {"nlohmann/", {"src/io/json.h", "src/io/json_fwd.h"}},
    {"pcre2.h", {"src/data/tokenizer/regex.cpp"}},
    {"unicode/", {"src/data/tokenizer/unicode.cpp"}},
    {"cblas.h", {"kernels/cpu/blas.cpp"}},
    {"omp.h", {"kernels/cpu/", "launch/"}},
    {"cuda", {"kernels/cuda/", "kernels/base/device_cuda.cpp"}},
    {"cublasLt.h", {"kernels/cuda/"}},
    {"cudnn", {"kernels/cuda/"}},
};

/// Own headers that only their neighbours may see, because they bring a library along.
const Door inner_doors[] = {
    {"parallel/comm/mpi_door.h", {"parallel/comm/"}},
};

/// The system's own headers. A library that is not here needs a door.
const std::set<std::string> system_headers = {
    "fcntl.h",   "unistd.h", "sched.h",   "signal.h",    "spawn.h",    "poll.h",
    "pthread.h", "netdb.h",  "dirent.h",  "fnmatch.h",   "glob.h",     "locale.h",
    "wctype.h",  "dlfcn.h",  "ifaddrs.h", "immintrin.h", "nmmintrin.h"};

bool starts_with_any(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::ranges::any_of(prefixes, [&](const std::string& prefix) { return name.starts_with(prefix); });
}

bool is_system(const std::string& name) {
  if (name.starts_with("sys/") || name.starts_with("netinet/") || name.starts_with("arpa/")) return true;
  if (name.starts_with("net/") || name.starts_with("linux/")) return true;
  const bool is_standard = name.find_first_of("./") == std::string::npos;  // <vector>
  return is_standard || system_headers.contains(name);
}

/// Why that file may not include that, or an empty text.
std::string objection(const std::string& file, const Include& include) {
  const std::string& name = include.name;
  if (include.is_angled) {
    for (const Door& door : doors) {
      if (!name.starts_with(door.header)) continue;
      return starts_with_any(file, door.files) ? "" : "only " + door.files.front() + " may include " + name;
    }
    return is_system(name) ? "" : "no door is known for <" + name + ">";
  }
  for (const Door& door : inner_doors) {
    if (name == door.header && !starts_with_any(file, door.files))
      return name + " is for " + door.files.front();
  }
  const bool is_beside = file.starts_with("kernels/cuda/") && name.find('/') == std::string::npos;
  if (is_beside) return "";
  for (const Floor& floor : floors) {
    if (!file.starts_with(floor.folder)) continue;
    const bool is_allowed = name.starts_with(floor.folder) || starts_with_any(name, floor.below);
    return is_allowed ? "" : floor.folder + " may not include " + name;
  }
  return "this folder is on no floor";
}

TEST(Floors, NoIncludePointsUpAndLibrariesAreBehindTheirDoors) {
  const std::vector<SourceFile> files = read_tree(root);
  ASSERT_GT(files.size(), 50u);
  size_t includes = 0;
  for (const SourceFile& file : files) {
    for (const Include& include : file.includes) {
      ++includes;
      const std::string why = objection(file.path, include);
      EXPECT_EQ(why, "") << file.path << ":" << include.line;
    }
  }
  EXPECT_GT(includes, files.size());
}

TEST(Floors, OwnIncludesNameTheirPathFromTheRoot) {
  const std::set<std::string> made = {"launch/build_info.h", "launch/revision.h"};  // by meson
  for (const SourceFile& file : read_tree(root)) {
    for (const Include& include : file.includes) {
      if (include.is_angled || made.contains(include.name)) continue;
      const bool is_there =
          std::filesystem::exists(root / include.name) || file.path.starts_with("kernels/cuda/");
      EXPECT_TRUE(is_there) << file.path << ":" << include.line << ": \"" << include.name << "\"";
    }
  }
}

TEST(Floors, TheRulesRefuseWhatTheyShould) {
  const struct {
    std::string file;
    Include include;
    bool is_refused;
  } rows[] = {
      {"kernels/base/log.cpp", {"kernels/ops/norm.h"}, true},
      {"kernels/cpu/norm.cpp", {"kernels/cuda/common.cuh"}, true},
      {"parallel/plan/mesh.h", {"kernels/base/tensor.h"}, true},
      {"parallel/plan/mesh.h", {"kernels/base/error.h"}, false},
      {"parallel/comm/mpi_comm.cpp", {"parallel/run/pipeline.h"}, true},
      {"parallel/run/pipeline.cpp", {"src/model/stage.h"}, true},
      {"src/model/stage.cpp", {"src/data/batches.h"}, true},
      {"src/data/batches.cpp", {"src/model/stage.h"}, true},
      {"src/model/stage.cpp", {"kernels/cpu/gemm.h"}, true},
      {"src/model/stage.cpp", {"parallel/run/pipeline.h"}, false},
      {"src/train/trainer.cpp", {"launch/cli.h"}, true},
      {"launch/main.cpp", {"tests/support/ranks.h"}, true},
      {"launch/main.cpp", {"src/train/config.h"}, false},
      {"src/io/hdf5.cpp", {"hdf5.h", true}, false},
      {"src/io/checkpoint.cpp", {"hdf5.h", true}, true},
      {"src/train/config_load.cpp", {"yaml-cpp/yaml.h", true}, true},
      {"src/model/spec.cpp", {"nlohmann/json.hpp", true}, true},
      {"src/model/spec.cpp", {"boost/any.hpp", true}, true},
      {"src/model/spec.cpp", {"openssl.h", true}, true},
      {"src/model/spec.cpp", {"vector", true}, false},
      {"src/io/checkpoint.cpp", {"sys/stat.h", true}, false},
      {"src/train/trainer.cpp", {"mpi.h", true}, true},
      {"src/train/trainer.cpp", {"parallel/comm/mpi_door.h"}, true},
      {"extra/file.cpp", {"src/io/json.h"}, true},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(!objection(row.file, row.include).empty(), row.is_refused)
        << row.file << " " << row.include.name;
  }
}

TEST(Floors, IncludesAreFoundInTheWaysTheyAreWritten) {
  EXPECT_EQ(include_of("#include <mpi.h>").name, "mpi.h");
  EXPECT_TRUE(include_of("#include <mpi.h>").is_angled);
  EXPECT_EQ(include_of("  #  include \"a/b.h\"  // why").name, "a/b.h");
  EXPECT_FALSE(include_of("#include \"a/b.h\"").is_angled);
  EXPECT_EQ(include_of("// #include <mpi.h>").name, "");
  EXPECT_EQ(include_of("#define X").name, "");
}

}  // namespace
}  // namespace ptrain::house
