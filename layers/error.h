// The one exception type that Vitrine throws for what a user can cause: bad files, shapes, names, options.
#pragma once

#include <stdexcept>
#include <string>

#include <vitrine/layers/export.h>

namespace vitrine {

// The message is one line: what, where, expected, got, and what to do.
class VITRINE_API Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
  ~Error() override;
};

}  // namespace vitrine
