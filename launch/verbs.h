// The table of verbs. A new verb = a file in launch/verbs, its declaration here and a row in verbs.cpp.
#pragma once

#include <span>

#include "launch/cli.h"

namespace ptrain {

/// All verbs, in the order of the help. `train` is the one that needs no name on the command line.
std::span<const Verb> verbs();

/// Each returns an exit code; errors are thrown.
int run_bench(const Arguments& arguments);
int run_config_schema(const Arguments& arguments);
int run_doctor(const Arguments& arguments);
int run_generate(const Arguments& arguments);
int run_eval(const Arguments& arguments);
int run_check(const Arguments& arguments);
int run_help(const Arguments& arguments);
int run_export(const Arguments& arguments);
int run_import(const Arguments& arguments);
int run_inspect(const Arguments& arguments);
int run_plan(const Arguments& arguments);
int run_preprocess(const Arguments& arguments);
int run_tokenize(const Arguments& arguments);
int run_report(const Arguments& arguments);
int run_train(const Arguments& arguments);
int run_verify(const Arguments& arguments);
int run_version(const Arguments& arguments);

}  // namespace ptrain
