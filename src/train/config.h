// What a user may choose for a run: plain structs, key for key the YAML file, defaults included.
// Not for reading or checking them: config_load.h reads, config_keys.h describes, config_check.h judges,
// config_write.h writes. A word `auto` is an empty optional or an enum value `automatic`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ptrain {

struct Config {
  enum class Device { automatic, cuda, cpu };
  enum class Precision { automatic, fp32, bf16, fp16, fp8 };
  enum class Init { pretrained, random };
  enum class NewTokenInit { normal, mean };
  enum class Schedule { gpipe, one_f_one_b, interleaved, zero_bubble, automatic };
  enum class Offload { none, optimizer };
  enum class Overlong { automatic, split, truncate, drop, error };
  enum class LearningRate { constant, linear, cosine, wsd };
  enum class Recompute { none, selective, full, automatic };
  enum class Deterministic { no, yes, grid };
  enum class Storage { automatic, shared, per_node };
  enum class FileType { automatic, fp32, bf16, fp16 };
  enum class LogLevel { debug, info, warning, error };

  struct Model {
    std::string path;  // HF directory or checkpoint
    Init init = Init::pretrained;
    NewTokenInit new_token_init = NewTokenInit::normal;
  };

  struct Parallel {
    int tensor = 1;
    int pipeline = 1;
    std::optional<int> data;  // empty = world / (tensor * pipeline), see data_ranks()
    Schedule schedule = Schedule::one_f_one_b;
    int virtual_stages = 1;
    std::optional<bool> sequence_parallel;  // empty = on when tensor > 1, see sequence_parallel()
    std::optional<int> tensor_strips;       // empty = what hides most, see tensor_strips_of() of run_plan.h
    int zero = 1;                           // 0 … 3
    Offload offload = Offload::none;
    bool allow_tensor_across_nodes = false;
    bool allow_slow_network = false;  // TCP where EFA or InfiniBand is there
    bool share_devices = false;       // several ranks on one GPU
  };

  struct Data {
    std::vector<std::string> train;  // files or patterns, in the given order
    std::vector<std::string> validation;
    int64_t sequence_length = 1536;  // tokens of a row
    bool packing = true;
    Overlong overlong = Overlong::automatic;
    bool shuffle = true;
    bool mask_prompt = true;
    std::optional<std::string> special_tokens;  // JSON file
  };

  struct Batch {
    int64_t micro = 1;    // rows per micro-batch and data-parallel rank
    int64_t global = 64;  // rows per optimizer step over all ranks
  };

  struct Optimizer {
    double learning_rate = 1e-5;
    LearningRate schedule = LearningRate::cosine;
    int64_t warmup_steps = 100;
    double min_ratio = 0.1;
    double decay_fraction = 0.1;
    std::array<double, 2> betas = {0.9, 0.95};
    double epsilon = 1e-8;
    double weight_decay = 0.1;
    double clip_grad_norm = 1.0;  // 0 = off
  };

  struct Train {
    int64_t epochs = 1;
    std::optional<int64_t> steps;  // wins over epochs
    int64_t seed = 1;
    Recompute recompute = Recompute::none;
    Deterministic deterministic = Deterministic::no;
    double hang_timeout_s = 300;
    double spike_threshold = 10;         // robust standard deviations; 0 = off
    int64_t check_replicas_every = 100;  // steps; 0 = never
    int64_t max_fruitless_starts = 3;    // in a row; 0 = any number
    int64_t max_bad_steps = 3;  // in a row, before the run goes back to its last snapshot; 0 = stop at once
  };

  struct Checkpoint {
    int64_t every = 500;  // steps; 0 = only at the end
    int64_t keep = 2;
    Storage storage = Storage::automatic;
    int replicas = 1;
    bool asynchronous = true;
    FileType dtype = FileType::automatic;  // of the safetensors; automatic = the source's
    std::optional<std::string> upload;     // s3://bucket/prefix
    double upload_bytes_per_s = 0;         // no faster; 0 = as fast as it goes
  };

  struct Evaluation {
    int64_t every = 0;  // steps; 0 = never
    bool keep_best = true;
  };

  struct Log {
    int64_t every = 1;  // steps
    LogLevel level = LogLevel::info;
    bool tensorboard = true;
    bool trace = false;
  };

  std::string output;  // everything the run writes lies below it
  Device device = Device::automatic;
  Precision precision = Precision::automatic;
  Model model;
  Parallel parallel;
  Data data;
  Batch batch;
  Optimizer optimizer;
  Train train;
  Checkpoint checkpoint;
  Evaluation evaluation;
  Log log;
};

/// parallel.data with `auto` resolved: world / (tensor * pipeline), rounded down. 16 ranks, 4 * 2: 2.
inline int data_ranks(const Config& config, int world) {
  const int64_t replica = int64_t{config.parallel.tensor} * config.parallel.pipeline;
  return config.parallel.data.value_or(static_cast<int>(world / replica));
}

/// parallel.sequence_parallel with `auto` resolved: on when tensor > 1.
inline bool sequence_parallel(const Config& config) {
  return config.parallel.sequence_parallel.value_or(config.parallel.tensor > 1);
}

}  // namespace ptrain
