// The model as the plan sees it: units, pieces, FLOPs, activation sizes, collectives. Made from a ModelSpec,
// pure.
#pragma once

#include "parallel/plan/workload.h"
#include "src/model/spec.h"
#include "src/model/weights.h"

namespace ptrain {

/// `stages`: more than one makes a tied embedding's copy for the head. `dtype`: of activations.
Workload workload_of(const ModelSpec& spec, SequenceParallel sequence_parallel, int stages,
                     DType dtype = DType::f32);

}  // namespace ptrain
