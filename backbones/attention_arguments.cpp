#include <vitrine/backbones/attention_arguments.h>

#include <array>
#include <string>

#include <vitrine/backbones/tokens.h>

namespace vitrine::detail {
namespace {

void read_options(ArgumentReader& reader, const Mechanism& mechanism, MixerValues& values) {
  for (const MixerOption& option : mechanism.options) {
    if (!reader.has(option.name)) {
      reader.ignore({option.name});
      continue;
    }
    std::array<double, 2>& value = values[std::string(option.name)];
    switch (option.kind) {
      case MixerOptionKind::integer: {
        std::int64_t one = 0;
        reader.get(option.name, one);
        value.fill(static_cast<double>(one));
        break;
      }
      case MixerOptionKind::pair: {
        std::array<std::int64_t, 2> two{};
        reader.get(option.name, two);
        value = {static_cast<double>(two[0]), static_cast<double>(two[1])};
        break;
      }
      case MixerOptionKind::number: {
        double one = 0;
        reader.get(option.name, one);
        value.fill(one);
        break;
      }
      case MixerOptionKind::boolean: {
        bool one = false;
        reader.get(option.name, one);
        value.fill(one ? 1.0 : 0.0);
        break;
      }
      case MixerOptionKind::choice: {
        std::string one;
        reader.get(option.name, one);
        value.fill(static_cast<double>(parse_choice("attention", option.name, one, option.choices)));
        break;
      }
    }
  }
}

}  // namespace

const Mechanism* read_attention(ArgumentReader& reader, MixerValues& values) {
  std::string name;
  reader.get("attention", name);
  if (name.empty()) return nullptr;
  const Mechanism& mechanism = find_mechanism(name);
  read_options(reader, mechanism, values);
  return &mechanism;
}

}  // namespace vitrine::detail
