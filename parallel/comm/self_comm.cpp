#include "parallel/comm/self_comm.h"

#include "parallel/comm/thread_wire.h"
#include "parallel/comm/wired_comm.h"

namespace ptrain {

std::unique_ptr<Communicator> make_self_communicator() {
  return std::make_unique<WiredCommunicator>(
      std::make_unique<ThreadWire>(std::make_shared<ThreadWorld>(1), 0));
}

}  // namespace ptrain
