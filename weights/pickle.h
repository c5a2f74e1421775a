// Reads Python pickles as data. Pickles are programs: they name functions and call them. Here nothing is called: values are
// built of a fixed set of kinds, and a name that is not on a fixed list (pickle.cpp) is refused. What is left of a call is a
// node with the function's name and its arguments, which the reader of PyTorch files understands or leaves alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine::detail {

struct PickleValue {
  enum class Kind {
    none,
    boolean,     // integer: 0 or 1
    integer,     // integer; beyond 64 bits: text holds its bytes (little-endian two's complement), integer is 0
    real,        // real
    text,        // text; bytes are texts, too
    global,      // text: "module.name"
    tuple,       // items
    list,        // items
    set,         // items
    dict,        // items: key, value, key, value, ...
    call,        // text: what is called; items: the arguments. Never executed
    persistent,  // items: one, the name of something outside of the pickle (a storage)
  };
  Kind kind = Kind::none;
  std::int64_t integer = 0;
  double real = 0;
  std::string_view text;  // lies in the pickle's bytes, or in the list of names
  std::vector<const PickleValue*> items;
};

// The values of a pickle, which keeps them alive. They may refer to each other in cycles.
class Pickle {
 public:
  // Reads one pickle from the beginning of `bytes`, which must outlive this; size() says where it ended. Throws Error,
  // naming `where`: cut or damaged, an opcode or a name that is refused, too many values.
  Pickle(std::span<const std::byte> bytes, const std::string& where);

  const PickleValue& root() const { return *root_; }
  const std::deque<PickleValue>& values() const { return values_; }  // all, in the order in which they were made
  std::size_t size() const { return size_; }

 private:
  friend class PickleMachine;
  std::deque<PickleValue> values_;
  std::deque<std::string> names_;
  const PickleValue* root_ = nullptr;
  std::size_t size_ = 0;
};

// The value of `key` in a dict, or null.
const PickleValue* find_item(const PickleValue& dict, std::string_view key);

}  // namespace vitrine::detail
