// Two hosts that are not alike, in network namespaces with disks of their own: exit code, one message, and it
// names the host. Not for hosts that work together: hosts_test.sh.
#include <cstdio>

#include "tests/launch/tiny_run.h"
#include "tests/launch/wrong_page.h"

namespace ptrain {
namespace {

constexpr int not_zero = -1;
constexpr double most_seconds = 60;  // with the 5 s that a rank waits for the first one to speak
// The message comes at once; that mpirun gives ranks of another host 4 s to leave is not what is looked at.
constexpr const char* quick_end = "OMPI_MCA_odls_base_sigkill_timeout=0";

struct Wrong {
  const char* what;
  const char* prepare;  // shell; $a and $b become the directory $mnt of host-a and host-b
  const char* command;  // of mpirun
  int code;
  std::vector<std::string> says;  // fragments of stderr, each once
  const char* by = "ptrain";
  const char* variables = "";
};

const Wrong table[] = {
    {"two builds",
     "cp $ptrain $a/ptrain && LC_ALL=C sed \"s/$revision/$(printf %s $revision | tr 0-9a-fu 1-9a-f0v)/\" "
     "$ptrain "
     ">$b/ptrain && chmod +x $b/ptrain",
     "$mnt/ptrain $config",
     2,
     {"program differs: ", " on host-a; ", " on host-b. install the same build on every host"}},
    {"a program that the second host does not have",
     "cp $ptrain $a/ptrain",
     "$mnt/ptrain $config",
     not_zero,
     {"unable to launch the specified application as it could not access", "Node: host-b"},
     "mpirun"},
    {"a configuration that the second host does not have",
     "cp $config $a/c.yaml",
     "$ptrain $mnt/c.yaml",
     2,
     {"c.yaml: no such file", "(on host host-b)"}},
    {"a configuration that was changed on one host alone",
     "cp $config $a/c.yaml && sed 's/0.003/0.004/' $config >$b/c.yaml",
     "$ptrain $mnt/c.yaml",
     2,
     {"the configuration is not the same on all ranks: optimizer.learning_rate is 0.004 here "
      "and 0.003 on rank 0; give every host the same file (on host host-b)"}},
    {"a model that the second host does not have",
     "cp -r $root/model $a/model",
     "$ptrain $config --model.path $mnt/model",
     3,
     {"model.path: $root/mnt/model is not a directory; give a Hugging Face directory (config.json, "
      "*.safetensors) (on host host-b)"}},
    {"another model under the same name",
     "cp -r $root/model $a/model && cp -r $root/model $b/model && sed -i 's/1e-06/1e-05/' "
     "$b/model/config.json && ! cmp -s $a/model/config.json $b/model/config.json",
     "$ptrain $config --model.path $mnt/model",
     3,
     {"model.path: $root/mnt/model is another model than on the first host: config.json, tensors or their "
      "first bytes differ; copy it anew (on host host-b)"}},
    {"data that the second host does not have",
     "cp $root/train.jsonl $a/",
     "$ptrain $config --data.train $mnt/train.jsonl",
     3,
     {"data.train: $root/mnt/train.jsonl: no such file (on host host-b)"}},
    {"other data under the same name",
     "cp $root/train.jsonl $a/ && head -n 100 $root/train.jsonl >$b/train.jsonl",
     "$ptrain $config --data.train $mnt/train.jsonl",
     3,
     {"data.train: the files are not the same on all hosts: here $root/mnt/train.jsonl: ",
      "; copy them anew (on host host-b)"}},
    {"an output that the second host cannot write",
     "touch $b/out",
     "$ptrain $config",
     4,
     {"$root/mnt/out: cannot be made: Not a directory (on host host-b)"}},
    {"an interface that the hosts do not have",
     "true",
     "$ptrain $config",
     2,
     {"OMPI_MCA_btl_tcp_if_include=eth77 names no interface of this host, by which MPI reaches no other host "
      "(this one has eth0); name another one or its network (10.0.0.0/16), or unset it"},
     "ptrain",
     "OMPI_MCA_btl_tcp_if_include=eth77"},
    {"the loopback as the interface between hosts",
     "true",
     "$ptrain $config",
     2,
     {"OMPI_MCA_btl_tcp_if_include=lo names the loopback alone, by which MPI reaches no other host"},
     "ptrain",
     "OMPI_MCA_btl_tcp_if_include=lo"},
};

/// The revision that the program says it is of, without "-dirty".
std::string revision() {
  const std::string text = run_program({PTRAIN_PROGRAM, "--version"}).out;
  const size_t at = text.find("git ") + 4;
  return text.substr(at, text.find_first_of("-\n", at) - at);
}

ProgramResult on_two_hosts(const TinyRun& run, const Wrong& wrong) {
  const std::string root = run.root();
  const std::string script = fmt::format(
      "set -e; mkdir $a $b $mnt; {}; exec bash {}/tests/harness/two_hosts.sh $a $b $mnt env {} "
      "$mpirun --host host-a:1,host-b:1 -np 2 -x OMP_NUM_THREADS {} --output $mnt/out",
      wrong.prepare, PTRAIN_SOURCE, wrong.variables, wrong.command);
  return run_program({"bash", "-c", script},
                     {quick_end, "OMP_NUM_THREADS=1", "ptrain=" PTRAIN_PROGRAM, "mpirun=" PTRAIN_MPIRUN,
                      "config=" + run.config().string(), "root=" + root, "a=" + root + "/a",
                      "b=" + root + "/b", "mnt=" + root + "/mnt", "revision=" + revision()});
}

std::string with_root(std::string text, const TinyRun& run) {
  const size_t at = text.find("$root");
  return at == std::string::npos ? text : text.replace(at, 5, run.root().string());
}

TEST(BadHosts, EachEndsWithItsCodeAndOneMessageThatNamesTheHost) {
  for (const Wrong& wrong : table) {
    SCOPED_TRACE(wrong.what);
    const TinyRun run;
    run.configure("batch: {global: 4}\ntrain: {steps: 2}\n");
    const ProgramResult result = on_two_hosts(run, wrong);
    if (result.code == 77) GTEST_SKIP() << result.err;
    const bool is_ours = wrong.code != not_zero;
    EXPECT_EQ(result.code, is_ours ? wrong.code : result.code) << result.err;
    EXPECT_NE(result.code, 0) << result.err;
    EXPECT_EQ(times_in(": error: ", result.err), is_ours ? 1 : 0) << result.err;
    for (const std::string& text : wrong.says)
      EXPECT_EQ(times_in(with_root(text, run), result.err), 1) << text << "\n" << result.err;
    EXPECT_EQ(result.out.find("step 1/"), std::string::npos) << "it trained: " << result.out;
    EXPECT_EQ(processes_left(run.root()), 0) << "ranks are left behind";
    EXPECT_LT(result.seconds, most_seconds);
    std::printf("  %5.2f s  %s\n", result.seconds, wrong.what);
  }
}

TEST(BadHosts, ThePageHasTheseRows) {
  std::vector<PageRow> rows;
  for (const Wrong& wrong : table) {
    std::vector<std::string> says = wrong.says;
    for (std::string& text : says)
      if (const size_t at = text.find("$root/mnt/"); at != std::string::npos) text.erase(at, 10);
    rows.push_back({wrong.what, wrong.code == not_zero ? "not 0" : std::to_string(wrong.code),
                    shown_message(says), wrong.by});
  }
  expect_on_page("hosts", {"what is wrong", "exit code", "what is said", "by"}, rows);
}

}  // namespace
}  // namespace ptrain
