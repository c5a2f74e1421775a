// Marks what the shared library exports; everything else is hidden.
#pragma once

#if defined(_WIN32)
#define VITRINE_API
#else
#define VITRINE_API __attribute__((visibility("default")))
#endif
