// Which kernels the tests ran, by type.
#pragma once

namespace vitrine::cuda::emulation {

// At the end of the process, where VITRINE_CUDA_COVERAGE is set: prints a table of launches, kernel by type, and ends with status
// 1 where one that computes in a type has not run in it.
void report_coverage_at_exit();

}  // namespace vitrine::cuda::emulation
