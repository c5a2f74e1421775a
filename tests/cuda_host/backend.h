// Puts the harness in the place of a GPU: after install(), Device{cuda, 0} is the host, on which the own kernels run as fibers.
#pragma once

namespace vitrine::cuda::emulation {

void install();

}  // namespace vitrine::cuda::emulation
