// Machines and shells that users meet, from outside: each row is a command line as one would type it. A row
// ends with its exit code and with each of its fragments once on stderr; what does no harm trains. The rows
// for two hosts are in bad_hosts_test.cpp, those for machines that nobody has at hand in doctor_test.cpp.
#include <unistd.h>

#include <cstdio>

#include "tests/launch/tiny_run.h"
#include "tests/launch/wrong_page.h"

namespace ptrain {
namespace {

constexpr int not_zero = -1;  // the launcher's own code, which is nothing to count on
// The message comes at once; that mpirun gives other ranks a second to leave is not what is looked at.
constexpr const char* quick_end = "OMPI_MCA_odls_base_sigkill_timeout=0";
constexpr double most_seconds = 20;  // ten times the goal of 2 s

struct Wrong {
  const char* what;
  const char* command;  // of a shell that has $ptrain, $mpirun, $config and $root, the test's directory
  int code;
  std::vector<std::string> says;  // fragments of stderr, each once
  const char* by = "ptrain";      // who says so
};

// --- How it is started
// -------------------------------------------------------------------------------------------------

const Wrong table[] = {
    {"3 ranks where the grid takes 2",
     "$mpirun -np 3 $ptrain $config --parallel.tensor 2",
     2,
     {"--parallel.tensor: tensor * pipeline = 2 * 1 = 2 does not divide the world: mpirun started 3 ranks; "
      "start 2 ranks, or change the mesh"}},
    {"the mpiexec of another MPI",
     "PMI_SIZE=4 PMI_RANK=0 $ptrain $config",
     2,
     {"mpiexec started 4 ranks, but none found each other: start it with the mpirun of the MPI it was built "
      "with"}},
    {"srun without its PMIx plugin",
     "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 $ptrain $config",
     2,
     {"srun started 4 ranks, but none found each other: start it with srun --mpi=pmix"}},
    {"a shell that was itself started by mpirun",
     "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0 $ptrain $config",
     2,
     {"mpirun started 4 ranks, but none found each other"}},
    {"SageMaker's SDK v3, which starts the ranks of one host for all",
     "SM_HOSTS='[\"algo-1\",\"algo-2\"]' $ptrain $config",
     2,
     {"SageMaker gave this job 2 hosts, but its 1 rank is on 1 of them"}},
    {"more ranks than slots",
     "OMPI_MCA_rmaps_base_oversubscribe=0 $mpirun --nooversubscribe -np 999 $ptrain $config",
     not_zero,
     {"There are not enough slots available in the system to satisfy the 999"},
     "mpirun"},
    {"no ssh to start ranks on another host",
     "PATH=/nowhere $mpirun --host elsewhere -np 2 $ptrain $config",
     not_zero,
     {"plm_rsh_agent: ssh : rsh"},
     "mpirun"},
    {"a wrong interface for mpirun's own messages",
     "OMPI_MCA_oob_tcp_if_include=eth77 $mpirun -np 2 $ptrain $config",
     not_zero,
     {"None of the TCP networks specified to be included for out-of-band communications", "eth77"},
     "mpirun"},
    {"TMPDIR that is not there",
     "TMPDIR=/proc/nowhere $mpirun -np 2 $ptrain $config",
     not_zero,
     {"Directory: /proc/nowhere"},
     "mpirun"},
    {"a library that is not installed",
     "LC_ALL=C sed 's/libyaml-cpp\\.so/libyaml-cqq.so/' $ptrain >$root/ptrain && chmod +x $root/ptrain && "
     "$root/ptrain $config",
     127,
     {"error while loading shared libraries: libyaml-cqq.so"},
     "the loader"},

    // --- Variables
    // ---------------------------------------------------------------------------------------------
    {"OMP_NUM_THREADS that is no number, on 4 ranks",
     "OMP_NUM_THREADS=many $mpirun -np 4 $ptrain $config",
     2,
     {"OMP_NUM_THREADS = \"many\" is not a number of threads; set it to 1 or more, or unset it"}},
    {"PTRAIN_FAULT that plants nothing, on 4 ranks",
     "PTRAIN_FAULT=boom $mpirun -np 4 $ptrain $config",
     2,
     {"PTRAIN_FAULT: \"boom\" is not ACTION@POINT"}},
    {"a key in the environment",
     "PTRAIN_OUTPUT=/elsewhere $ptrain $config",
     0,
     {"warning: the variable PTRAIN_OUTPUT is not read: give --output /elsewhere"}},
    {"checkpoints to S3 without s5cmd, aws or rclone",
     "PATH=/nowhere $ptrain $config --checkpoint.upload s3://bucket/runs",
     2,
     {"--checkpoint.upload: S3 needs s5cmd, aws or rclone, and none is on the PATH"}},
    {"no HOME", "unset HOME; $ptrain $config", 0, {}},
    {"a language that is not installed", "LANG=xx_YY LC_ALL=xx_YY.UTF-8 $ptrain $config", 0, {}},
    {"a terminal that nobody knows", "TERM=nonsense $ptrain $config", 0, {}},

    // --- Directories and files
    // ---------------------------------------------------------------------------------------------
    {"a working directory that has been deleted",
     "mkdir $root/gone && cd $root/gone && rmdir $root/gone && $ptrain $config",
     2,
     {"the working directory has been deleted", "; change into one that is there"}},
    {"an output that is a link to nowhere",
     "ln -s $root/nowhere $root/link && $ptrain $config --output $root/link",
     4,
     {"output: $root/link is a link to $root/nowhere, which is not there; make it, or give another output"}},
    {"an output that is a link to a directory",
     "mkdir $root/disk && ln -s $root/disk $root/link && $ptrain $config --output $root/link",
     0,
     {}},
    {"a file where checkpoints belong",
     "mkdir $root/out && touch $root/out/checkpoints && $ptrain $config",
     4,
     {"output: $root/out/checkpoints is in the way: a directory of the run belongs there"}},
    {"a directory where metrics.jsonl belongs",
     "mkdir -p $root/out/metrics.jsonl && $ptrain $config",
     4,
     {"output: $root/out/metrics.jsonl is in the way: a file of the run belongs there"}},
    {"a file where the tokens belong",
     "mkdir $root/out && touch $root/out/data && $mpirun -np 2 $ptrain $config",
     4,
     {"output: $root/out/data is in the way: a directory of the run belongs there"}},
    {"weights that Git LFS has not fetched",
     "printf 'version https://git-lfs.github.com/spec/v1\\noid sha256:ab\\nsize 397432\\n' "
     ">$root/model/model.safetensors && $mpirun -np 2 $ptrain $config",
     3,
     {"model/model.safetensors: is a pointer of Git LFS, not the file: run `git lfs pull` in its directory"}},
    {"a compressed file of rows",
     "gzip -c $root/train.jsonl >$root/t.jsonl && $ptrain $config --data.train $root/t.jsonl",
     3,
     {"$root/t.jsonl:1:2: not UTF-8 (byte 0x8b); is it another encoding, or compressed?"}},

    // --- Limits and streams
    // ---------------------------------------------------------------------------------------------
    {"ulimit -n 256",
     "ulimit -n 256; $ptrain $config",
     0,
     {"files: 256 open files at most: connections of many ranks and files of a checkpoint need more. ulimit "
      "-n 65536"}},
    {"ulimit -f, files of 51 kB at most",
     "ulimit -f 100; $ptrain $config",
     4,
     {"File too large", "the checkpoint of step 2 needs 1362432 bytes"}},
    {"a full disk under stdout while training",
     "$ptrain $config >/dev/full",
     0,
     {"warning: stdout cannot be written: steps are shown in <output>/metrics.jsonl alone"}},
    {"a full disk under stdout of another verb",
     "$ptrain plan $config --ranks 2 >/dev/full",
     4,
     {"stdout cannot be written"}},
};

// --- What needs a mount of its own, and so root or a user namespace: skipped where it cannot be
// -------------------------------------------------------------------------------------------------

const Wrong mounted[] = {
    {"an output on a disk that is mounted read-only",
     "mount -t tmpfs -o ro none $root/disk && $ptrain $config --output $root/disk/out",
     4,
     {"output: $root/disk/out cannot be made: Read-only file system"}},
    {"an output whose disk has become read-only",
     "mount -t tmpfs -o ro none $root/disk && $mpirun -np 2 $ptrain $config --output $root/disk",
     4,
     {"$root/disk/.lock: cannot be written: Read-only file system"}},
    {"a disk that is full at the start",
     "mount -t tmpfs -o size=64k none $root/disk && dd if=/dev/zero of=$root/disk/x 2>/dev/null; $ptrain "
     "$config --output $root/disk/out",
     4,
     {"output: $root/disk/out/.lock cannot be written: No space left on device"}},
    {"a disk without room for a checkpoint",
     "mount -t tmpfs -o size=600k none $root/disk && $mpirun -np 2 $ptrain $config --output $root/disk/out",
     4,
     {"not enough room, nothing was written; the checkpoint of step 2 needs"}},
    {"a disk without room for another file",
     "mount -t tmpfs -o nr_inodes=3 none $root/disk && $ptrain $config --output $root/disk/out",
     4,
     {"$root/disk/out/data: cannot be made: No space left on device"}},
    {"a /dev/shm of 1 MiB for 4 ranks",
     // Without Open MPI's own segments there: for each that has no room a rank sends mpirun a help text, and
     // printing these, mpirun 4.1.4 crashes now and then.
     "mount -t tmpfs -o size=1m none /dev/shm && OMPI_MCA_btl=^vader $mpirun -np 4 $ptrain "
     "$config",
     0,
     {"shm: /dev/shm has 1 MiB left; 4 ranks on a host take some 128 MiB of it"}},
};

// --- What a user may not read. $as_user: an unprivileged one, where the tests are run by root; $closed: what
// keeps such a user out
// -------------------------------------------------------------------------------------------------

const Wrong closed[] = {
    {"a model directory that the user may not enter",
     "chmod 755 $root; chmod $closed $root/model; $as_user $ptrain check $config --no-data; code=$?; chmod "
     "700 "
     "$root/model; exit $code",
     3,
     {"$root/model/config.json: cannot be read: Permission denied"}},
};

bool is_root() {
  return ::getuid() == 0;
}

std::string as_user() {
  return is_root() ? "setpriv --reuid 65534 --regid 65534 --clear-groups" : "";
}

std::string with_root(std::string text, const TinyRun& run) {
  for (size_t at = text.find("$root"); at != std::string::npos; at = text.find("$root"))
    text.replace(at, 5, run.root().string());
  return text;
}

void expect_row(const Wrong& wrong, const std::vector<std::string>& shell) {
  SCOPED_TRACE(wrong.what);
  const TinyRun run;
  run.configure("batch: {global: 4}\ntrain: {steps: 2}\n");
  if (shell.size() > 2) std::filesystem::create_directory(run.root() / "disk");
  std::vector<std::string> words = shell;
  words.push_back(wrong.command);
  const ProgramResult result = run_program(
      words, {quick_end, "OMP_NUM_THREADS=1", "OMPI_MCA_rmaps_base_oversubscribe=1", "as_user=" + as_user(),
              std::string("closed=") + (is_root() ? "700" : "000"), "ptrain=" PTRAIN_PROGRAM,
              "mpirun=" PTRAIN_MPIRUN, "config=" + run.config().string(), "root=" + run.root().string()});
  if (wrong.code == not_zero) {
    EXPECT_NE(result.code, 0) << result.err;
  } else {
    EXPECT_EQ(result.code, wrong.code) << result.err;
  }
  const bool is_ours = wrong.by == std::string("ptrain");
  EXPECT_EQ(times_in(": error: ", result.err), is_ours && wrong.code != 0 ? 1 : 0) << result.err;
  for (const std::string& text : wrong.says)
    EXPECT_EQ(times_in(with_root(text, run), result.err), 1) << text << "\n" << result.err;
  if (wrong.code == 0) {
    EXPECT_TRUE(std::filesystem::exists(run.output() / "model") ||
                std::filesystem::exists(run.root() / "disk/model"))
        << result.err;
    EXPECT_EQ(times_in("warning: ", result.err), wrong.says.empty() ? 0 : 1) << result.err;
  }
  EXPECT_EQ(processes_left(run.root()), 0) << "ranks are left behind";
  EXPECT_LT(result.seconds, most_seconds);
  std::printf("  %5.2f s  %s\n", result.seconds, wrong.what);
}

TEST(BadEnvironment, EachEndsWithItsCodeAndOneMessage) {
  for (const Wrong& wrong : table) expect_row(wrong, {"sh", "-c"});
}

TEST(BadEnvironment, DisksAndSharedMemoryThatCannotBeUsed) {
  const std::vector<std::string> shell = is_root() ? std::vector<std::string>{"unshare", "-m", "sh", "-c"}
                                                   : std::vector<std::string>{"unshare", "-rm", "sh", "-c"};
  std::vector<std::string> probe = shell;
  probe.push_back("mount -t tmpfs none /tmp");
  if (run_program(probe).code != 0) GTEST_SKIP() << "mounts of one's own are not allowed here";
  for (const Wrong& wrong : mounted) expect_row(wrong, shell);
}

TEST(BadEnvironment, FilesOfOthers) {
  if (run_program({"sh", "-c", as_user() + " " PTRAIN_PROGRAM " --version"}).code != 0)
    GTEST_SKIP() << "an unprivileged user cannot start the program here";
  for (const Wrong& wrong : closed) expect_row(wrong, {"sh", "-c"});
}

TEST(BadEnvironment, StreamsThatWereClosedAreNotTheNextFilesThatAreOpened) {
  const TinyRun run;
  run.configure("batch: {global: 4}\ntrain: {steps: 2}\n");
  const std::string command = fmt::format("exec {} {} <&- >&- 2>&-", PTRAIN_PROGRAM, run.config().string());
  // While it runs: <output>/.lock would be descriptor 1, and hold the steps.
  RunningProgram program({"sh", "-c", command + " --train.steps 100000"}, {"OMP_NUM_THREADS=1"});
  while (!std::filesystem::exists(run.output() / "metrics.jsonl") && !program.has_ended()) ::usleep(20000);
  for (int tries = 0; tries < 100 && read_text(run.output() / "metrics.jsonl", 1 << 20).empty(); ++tries)
    ::usleep(20000);
  const std::string lock = read_text(run.output() / ".lock", 1 << 20);
  EXPECT_TRUE(lock.starts_with("host ")) << lock;
  EXPECT_EQ(lock.find("step 1/"), std::string::npos) << lock;
  ::kill(program.pid(), SIGUSR1);
  EXPECT_EQ(program.wait().code, 75);
  EXPECT_NE(read_text(run.output() / "metrics.jsonl", 1 << 26).find("\"step\":1,"), std::string::npos);
}

TEST(BadEnvironment, ThePageHasTheseRows) {
  std::vector<PageRow> rows;
  const auto add = [&](const Wrong& wrong) {
    rows.push_back({wrong.what, wrong.code == not_zero ? "not 0" : std::to_string(wrong.code),
                    wrong.says.empty() ? "nothing: it trains" : shown_message(wrong.says), wrong.by});
  };
  for (const Wrong& wrong : table) add(wrong);
  for (const Wrong& wrong : mounted) add(wrong);
  for (const Wrong& wrong : closed) add(wrong);
  EXPECT_GE(rows.size(), 20u);
  expect_on_page("environments", {"what is wrong", "exit code", "what is said", "by"}, rows);
}

}  // namespace
}  // namespace ptrain
