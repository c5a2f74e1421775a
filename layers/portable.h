// For the few functions that both the host and kernels on a GPU call: formulas of positions and windows.
#pragma once

#if defined(__CUDACC__)
#define VITRINE_PORTABLE __host__ __device__ inline
#else
#define VITRINE_PORTABLE inline
#endif
