// The door to MPI: the one place that includes mpi.h. For mpi_comm.cpp and session.cpp only.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface is all we use; the C++ one is gone from the standard
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>

#include <memory>
#include <string_view>

#include "parallel/comm/communicator.h"

namespace ptrain {

/// Throws an Error with MPI's own text unless `code` is MPI_SUCCESS. `what` is the call.
void mpi_check(int code, std::string_view what);

struct MpiOptions {
  bool is_crowded = false;        // more ranks on this host than cores: waiting must give way
  int64_t max_message_bytes = 0;  // see SessionOptions
};

/// A communicator on `comm`, which it takes over. Its errors become return codes.
std::unique_ptr<Communicator> make_mpi_communicator(MPI_Comm comm, const MpiOptions& options);

}  // namespace ptrain
