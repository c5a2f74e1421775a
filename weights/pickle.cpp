#include <vitrine/weights/pickle.h>

#include <bit>
#include <cstring>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>

namespace vitrine::detail {

using Kind = PickleValue::Kind;

namespace {

// A checkpoint of a large model with its optimizer has some 100,000 values; memory stays below 500 MB for any file.
constexpr std::size_t kMostValues = 2'000'000;

// What calling or instantiating a name gives. Everything else in Python is refused.
enum class Makes { nothing, dict, list, set, tuple, call };

struct Name {
  std::string_view name;
  Makes makes;
};

constexpr Name kNames[] = {
    {"collections.OrderedDict", Makes::dict},
    {"collections.defaultdict", Makes::dict},
    {"collections.Counter", Makes::dict},
    {"yacs.config.CfgNode", Makes::dict},
    {"builtins.dict", Makes::dict},
    {"__builtin__.dict", Makes::dict},
    {"builtins.list", Makes::list},
    {"__builtin__.list", Makes::list},
    {"builtins.set", Makes::set},
    {"__builtin__.set", Makes::set},
    {"builtins.frozenset", Makes::set},
    {"__builtin__.frozenset", Makes::set},
    {"torch.Size", Makes::tuple},
    {"builtins.tuple", Makes::tuple},
    {"__builtin__.tuple", Makes::tuple},
    // Plain data: kept as a name and arguments.
    {"argparse.Namespace", Makes::call},
    {"pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", Makes::nothing},  // a key in Stable Diffusion's .ckpt
    {"builtins.bool", Makes::nothing},
    {"builtins.int", Makes::nothing},
    {"builtins.float", Makes::nothing},
    {"builtins.str", Makes::nothing},
    {"builtins.bytes", Makes::nothing},
    {"builtins.complex", Makes::call},
    {"__builtin__.complex", Makes::call},
    {"builtins.slice", Makes::call},
    {"builtins.bytearray", Makes::call},
    {"_codecs.encode", Makes::call},
    {"pathlib.PosixPath", Makes::call},
    {"numpy.dtype", Makes::call},
    {"numpy.core.multiarray.scalar", Makes::call},
    {"numpy._core.multiarray.scalar", Makes::call},
    {"torch.device", Makes::call},
    // Tensors and what they are made of.
    {"torch._utils._rebuild_tensor", Makes::call},
    {"torch._utils._rebuild_tensor_v2", Makes::call},
    {"torch._utils._rebuild_tensor_v3", Makes::call},
    {"torch._utils._rebuild_parameter", Makes::call},
    {"torch._utils._rebuild_parameter_with_state", Makes::call},
    {"torch._tensor._rebuild_from_type_v2", Makes::call},
    {"torch.Tensor", Makes::nothing},
    {"torch.nn.parameter.Parameter", Makes::nothing},
    {"torch.nn.parameter.Buffer", Makes::nothing},
    {"torch.storage.UntypedStorage", Makes::nothing},
    {"torch.storage.TypedStorage", Makes::nothing},
    {"torch.UntypedStorage", Makes::nothing},
    {"torch.serialization._get_layout", Makes::call},
};

// torch.FloatStorage, torch.float32 and their kin: they name a type and can do nothing.
constexpr std::string_view kTypeNames[] = {"Double",        "Float", "Half",   "BFloat16", "Long",        "Int",
                                           "Short",         "Char",  "Byte",   "Bool",     "ComplexHalf", "ComplexFloat",
                                           "ComplexDouble", "QInt8", "QUInt8", "QInt32",   "QUInt4x2",    "QUInt2x4"};
constexpr std::string_view kDTypes[] = {
    "float64", "double",    "float32",   "float",      "float16",       "half",        "bfloat16",       "int64",  "long",
    "int32",   "int",       "int16",     "short",      "int8",          "uint8",       "uint16",         "uint32", "uint64",
    "bool",    "complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "strided"};

const Name* find_name(std::string_view name) {
  static constexpr Name kInert{"", Makes::nothing};
  for (const Name& known : kNames)
    if (known.name == name) return &known;
  for (const std::string_view prefix : {"torch.", "torch.cuda."}) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view rest = name.substr(prefix.size());
    for (const std::string_view type : kTypeNames)
      if (rest.starts_with(type) && rest.substr(type.size()) == "Storage") return &kInert;
  }
  for (const std::string_view dtype : kDTypes)
    if (name.starts_with("torch.") && name.substr(6) == dtype) return &kInert;
  return nullptr;
}

}  // namespace

// The stack machine of Python's pickle module, protocols 2 to 5. Values of the stack and the memo are nodes of the Pickle.
class PickleMachine {
 public:
  PickleMachine(Pickle& pickle, std::span<const std::byte> bytes, const std::string& where)
      : pickle_(pickle), bytes_(bytes), where_(where) {}

  void run() {
    while (step()) {
    }
    pickle_.root_ = pop();
    pickle_.size_ = at_;
  }

 private:
  [[noreturn]] void damaged(std::string_view why) const {
    throw Error(
        fmt::format("{}: not a readable pickle: {} at byte {} (damaged or cut short? download it again)", where_, why, at_));
  }

  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size() - at_) damaged("it ends early");
    const std::string_view taken(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return taken;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view line() {
    const std::size_t begin = at_;
    while (take(1)[0] != '\n') {
    }
    return {reinterpret_cast<const char*>(bytes_.data()) + begin, at_ - 1 - begin};
  }

  PickleValue& make(Kind kind) {
    if (pickle_.values_.size() >= kMostValues)
      throw Error(fmt::format("{}: its pickle has more than {} values: refused", where_, kMostValues));
    PickleValue& value = pickle_.values_.emplace_back();
    value.kind = kind;
    return value;
  }

  // Each value of the stack was made or taken from the memo by an opcode; the bound keeps a pickle of DUPs small.
  void push(PickleValue& value) {
    if (stack_.size() >= kMostValues) throw Error(fmt::format("{}: its pickle is stacked too high: refused", where_));
    stack_.push_back(&value);
  }

  PickleValue& top() {
    if (stack_.size() == floor()) damaged("a value is missing");
    return *stack_.back();
  }

  PickleValue* pop() {
    PickleValue& value = top();
    stack_.pop_back();
    return &value;
  }

  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  std::vector<const PickleValue*> pop_to_mark() {
    if (marks_.empty()) damaged("a mark is missing");
    std::vector<const PickleValue*> values(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
    stack_.resize(marks_.back());
    marks_.pop_back();
    return values;
  }

  // The items of lists grow with the opcodes that put values onto the stack, but dict entries of shared values could be
  // added again and again: they count as values.
  void append(PickleValue& to, std::span<const PickleValue* const> values) {
    items_ += values.size();
    if (items_ > 4 * kMostValues) throw Error(fmt::format("{}: its pickle has too many items: refused", where_));
    to.items.insert(to.items.end(), values.begin(), values.end());
  }

  void push_integer(std::int64_t value) {
    PickleValue& made = make(Kind::integer);
    made.integer = value;
    push(made);
  }

  void push_long(std::string_view bytes) {
    PickleValue& made = make(Kind::integer);
    if (bytes.size() > 8) {
      made.text = bytes;
    } else if (!bytes.empty()) {
      std::uint64_t value = (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
      std::memcpy(&value, bytes.data(), bytes.size());
      made.integer = static_cast<std::int64_t>(value);
    }
    push(made);
  }

  void push_text(std::string_view text) {
    PickleValue& made = make(Kind::text);
    made.text = text;
    push(made);
  }

  void push_boolean(bool value) {
    PickleValue& made = make(Kind::boolean);
    made.integer = value;
    push(made);
  }

  void push_real() {
    PickleValue& made = make(Kind::real);
    made.real = std::bit_cast<double>(__builtin_bswap64(number<std::uint64_t>()));
    push(made);
  }

  void push_tuple(std::size_t size) {
    PickleValue& made = make(Kind::tuple);
    made.items.resize(size);
    for (std::size_t i = size; i-- > 0;) made.items[i] = pop();
    push(made);
  }

  void push_items(Kind kind) {
    PickleValue& made = make(kind);
    append(made, pop_to_mark());
    push(made);
  }

  void push_global(std::string_view module, std::string_view name) {
    const std::string full = fmt::format("{}.{}", module, name);
    if (find_name(full) == nullptr) refuse_name(full);
    PickleValue& made = make(Kind::global);
    made.text = pickle_.names_.emplace_back(full);
    push(made);
  }

  [[noreturn]] void refuse_name(const std::string& name) const {
    const std::string shown = printable(name);
    if (name.starts_with("__torch__."))
      throw Error(fmt::format("{}: a TorchScript program ({}), not a checkpoint: save its state_dict()", where_, shown));
    throw Error(
        fmt::format("{}: its pickle names {}, which is not part of plain weights and could run code: refused; save the model's "
                    "state_dict() alone, or as .safetensors",
                    where_, shown));
  }

  // What calling `callee` with these arguments would give, as data.
  void push_result(const PickleValue& callee, const PickleValue& arguments) {
    if (callee.kind != Kind::global) damaged("what is called is no name");
    if (arguments.kind != Kind::tuple) damaged("arguments are no tuple");
    const Name& known = *find_name(callee.text);
    switch (known.makes) {
      case Makes::nothing:
        refuse_call(callee.text);
      case Makes::call: {
        PickleValue& made = make(Kind::call);
        made.text = callee.text;
        append(made, arguments.items);
        return push(made);
      }
      case Makes::dict:
        return push(make_dict(arguments));
      case Makes::list:
      case Makes::set:
      case Makes::tuple: {
        PickleValue& made = make(known.makes == Makes::list ? Kind::list : known.makes == Makes::set ? Kind::set : Kind::tuple);
        if (!arguments.items.empty()) {
          const PickleValue& from = *arguments.items.front();
          if (from.kind != Kind::list && from.kind != Kind::tuple && from.kind != Kind::set) refuse_call(callee.text);
          append(made, from.items);
        }
        return push(made);
      }
    }
  }

  [[noreturn]] void refuse_call(std::string_view name) const {
    throw Error(fmt::format("{}: its pickle calls {} in a way that plain weights do not: refused", where_, printable(name)));
  }

  // dict(), or dict([(key, value), ...]); the factory of a defaultdict does not matter.
  PickleValue& make_dict(const PickleValue& arguments) {
    PickleValue& made = make(Kind::dict);
    if (arguments.items.empty()) return made;
    const PickleValue& from = *arguments.items.front();
    if (from.kind == Kind::dict) append(made, from.items);
    if (from.kind == Kind::list)
      for (const PickleValue* pair : from.items) {
        if ((pair->kind != Kind::list && pair->kind != Kind::tuple) || pair->items.size() != 2)
          damaged("a dict's item is no pair");
        append(made, pair->items);
      }
    return made;
  }

  // object.__setstate__ or its attributes: an OrderedDict's say nothing about weights, a Namespace's are its content.
  void build() {
    const PickleValue* state = pop();
    PickleValue& object = top();
    if (object.kind == Kind::call)
      append(object, std::span(&state, 1));
    else if (object.kind != Kind::dict)
      damaged("a value that cannot have attributes gets some");
  }

  void set_items(std::span<const PickleValue* const> pairs) {
    PickleValue& dict = top();
    if (dict.kind != Kind::dict || pairs.size() % 2 != 0) damaged("items for what is no dict");
    append(dict, pairs);
  }

  void add_items(Kind kind, std::span<const PickleValue* const> values) {
    PickleValue& to = top();
    if (to.kind != kind) damaged("items for what cannot have them");
    append(to, values);
  }

  void memoize(std::uint64_t place) {
    if (memo_.size() >= kMostValues) throw Error(fmt::format("{}: its pickle keeps too many values: refused", where_));
    memo_[place] = &top();
  }

  void recall(std::uint64_t place) {
    const auto found = memo_.find(place);
    if (found == memo_.end()) damaged("a value is used that was not kept");
    push(*found->second);
  }

  void push_persistent() {
    const PickleValue* name = pop();
    PickleValue& made = make(Kind::persistent);
    made.items.push_back(name);
    push(made);
  }

  // One opcode; false after the last.
  bool step() {
    const auto opcode = static_cast<unsigned char>(take(1)[0]);
    switch (opcode) {
      case '.':
        return false;
      case 0x80:  // PROTO
        if (const auto protocol = number<std::uint8_t>(); protocol > 5) damaged(fmt::format("protocol {} is unknown", protocol));
        break;
      case 0x95:  // FRAME
        if (number<std::uint64_t>() > bytes_.size() - at_) damaged("it ends early");
        break;
      case '(':
        if (marks_.size() >= kMostValues) throw Error(fmt::format("{}: its pickle is stacked too high: refused", where_));
        marks_.push_back(stack_.size());
        break;
      case '0':  // POP, which takes a mark where one is on top
        if (!marks_.empty() && stack_.size() == marks_.back())
          marks_.pop_back();
        else
          pop();
        break;
      case '1':  // POP_MARK
        pop_to_mark();
        break;
      case '2':  // DUP
        push(top());
        break;
      case 'N':
        push(make(Kind::none));
        break;
      case 0x88:
        push_boolean(true);
        break;
      case 0x89:
        push_boolean(false);
        break;
      case 'K':
        push_integer(number<std::uint8_t>());
        break;
      case 'M':
        push_integer(number<std::uint16_t>());
        break;
      case 'J':
        push_integer(number<std::int32_t>());
        break;
      case 0x8a:  // LONG1
        push_long(take(number<std::uint8_t>()));
        break;
      case 0x8b:  // LONG4
        push_long(take(number<std::uint32_t>()));
        break;
      case 'G':
        push_real();
        break;
      case 'U':   // SHORT_BINSTRING
      case 'C':   // SHORT_BINBYTES
      case 0x8c:  // SHORT_BINUNICODE
        push_text(take(number<std::uint8_t>()));
        break;
      case 'T':  // BINSTRING
      case 'B':  // BINBYTES
      case 'X':  // BINUNICODE
        push_text(take(number<std::uint32_t>()));
        break;
      case 0x8d:  // BINUNICODE8
      case 0x8e:  // BINBYTES8
      case 0x96:  // BYTEARRAY8
        push_text(take(number<std::uint64_t>()));
        break;
      case ')':
        push_tuple(0);
        break;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(opcode - 0x84u);
        break;
      case 't':
        push_items(Kind::tuple);
        break;
      case ']':
        push(make(Kind::list));
        break;
      case 'l':
        push_items(Kind::list);
        break;
      case '}':
        push(make(Kind::dict));
        break;
      case 'd': {
        const auto items = pop_to_mark();
        push(make(Kind::dict));
        set_items(items);
        break;
      }
      case 0x8f:
        push(make(Kind::set));
        break;
      case 0x91:  // FROZENSET
        push_items(Kind::set);
        break;
      case 'a': {
        const PickleValue* value = pop();
        add_items(Kind::list, std::span(&value, 1));
        break;
      }
      case 'e':
        add_items(Kind::list, pop_to_mark());
        break;
      case 0x90:  // ADDITEMS
        add_items(Kind::set, pop_to_mark());
        break;
      case 's': {
        const PickleValue* value = pop();
        const PickleValue* pair[] = {pop(), value};
        set_items(pair);
        break;
      }
      case 'u':
        set_items(pop_to_mark());
        break;
      case 'q':
        memoize(number<std::uint8_t>());
        break;
      case 'r':
        memoize(number<std::uint32_t>());
        break;
      case 0x94:
        memoize(memo_.size());
        break;
      case 'h':
        recall(number<std::uint8_t>());
        break;
      case 'j':
        recall(number<std::uint32_t>());
        break;
      case 'c': {
        const std::string_view module = line();
        push_global(module, line());
        break;
      }
      case 0x93: {  // STACK_GLOBAL
        const PickleValue *name = pop(), *module = pop();
        if (name->kind != Kind::text || module->kind != Kind::text) damaged("a name is no text");
        push_global(module->text, name->text);
        break;
      }
      case 'R':
      case 0x81: {  // REDUCE, NEWOBJ
        const PickleValue *arguments = pop(), *callee = pop();
        push_result(*callee, *arguments);
        break;
      }
      case 'b':
        build();
        break;
      case 'Q':
        push_persistent();
        break;
      default:
        throw Error(fmt::format("{}: its pickle has the opcode {:#04x} at byte {}, which PyTorch does not write: refused", where_,
                                opcode, at_ - 1));
    }
    return true;
  }

  Pickle& pickle_;
  std::span<const std::byte> bytes_;
  const std::string& where_;
  std::size_t at_ = 0, items_ = 0;
  std::vector<PickleValue*> stack_;
  std::vector<std::size_t> marks_;
  std::unordered_map<std::uint64_t, PickleValue*> memo_;
};

Pickle::Pickle(std::span<const std::byte> bytes, const std::string& where) { PickleMachine(*this, bytes, where).run(); }

const PickleValue* find_item(const PickleValue& dict, std::string_view key) {
  const PickleValue* found = nullptr;  // of a key that comes twice, the last counts
  for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2)
    if (dict.items[i]->kind == Kind::text && dict.items[i]->text == key) found = dict.items[i + 1];
  return found;
}

}  // namespace vitrine::detail
