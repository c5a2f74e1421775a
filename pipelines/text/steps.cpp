#include <vitrine/pipelines/text/steps.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/text/bpe.h>
#include <vitrine/pipelines/text/chars_map.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine::detail {
namespace {

using Json = nlohmann::json;
using Class = bool (*)(char32_t);

[[noreturn]] void refuse(const Json& step) {
  throw Error(fmt::format("makes use of {}, which is not known here",
                          printable(step.dump(-1, ' ', true, Json::error_handler_t::replace), 200)));
}

// A text that a step puts in.
std::string text_of(const Json& step, const char* member) {
  auto text = step.at(member).get<std::string>();
  if (text.size() > kLongestStepText) refuse(step);
  return text;
}

std::string type_of(const Json& step) { return step.at("type").get<std::string>(); }

// Where the run of `is_one` that begins at `at` ends.
std::size_t run_end(std::string_view text, std::size_t at, Class is_one) {
  while (at < text.size()) {
    std::size_t after = at;
    if (!is_one(next_char(text, after))) break;
    at = after;
  }
  return at;
}

// --- normalizers

std::string replace_text(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t found = std::min(text.find(from, at), text.size());
    result += text.substr(at, found - at);
    if (found < text.size()) result += to;
    at = found + from.size();
  }
  return result;
}

// Runs of at least `least` characters of a class become `to`.
std::string replace_runs(std::string_view text, Class is_one, std::size_t least, std::string_view to) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t after = at, count = 0;
    while (after < text.size()) {
      std::size_t next = after;
      if (!is_one(next_char(text, next))) break;
      after = next;
      ++count;
    }
    if (count == 0) next_char(text, after);
    if (count >= least)
      result += to;
    else
      result += text.substr(at, after - at);
    at = after;
  }
  return result;
}

bool is_blank(char32_t c) { return c == U' '; }

struct RunPattern {
  std::string_view regex;
  Class is_one;
  std::size_t least;
};
constexpr RunPattern kRunPatterns[] = {
    {"\\s+", is_space, 1}, {"\\s{2,}", is_space, 2}, {" +", is_blank, 1}, {" {2,}", is_blank, 2}};

Normalizer read_replace(const Json& step) {
  const Json& pattern = step.at("pattern");
  const std::string to = text_of(step, "content");
  if (pattern.contains("String")) {
    const auto from = pattern["String"].get<std::string>();
    if (from.empty()) refuse(step);
    return [from, to](std::string_view text) { return replace_text(text, from, to); };
  }
  const auto regex = pattern.at("Regex").get<std::string>();
  for (const RunPattern& known : kRunPatterns)
    if (known.regex == regex)
      return [&known, to](std::string_view text) { return replace_runs(text, known.is_one, known.least, to); };
  refuse(step);
}

std::string strip(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(run_end(text, 0, is_space));
  if (!right) return std::string(text);
  std::size_t kept = 0;
  for (std::size_t at = 0; at < text.size();)
    if (!is_space(next_char(text, at))) kept = at;
  return std::string(text.substr(0, kept));
}

std::string decode_base64(const std::string& text) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : std::string_view(text).substr(0, text.find('='))) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) throw Error("precompiled_charsmap is not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xFF);
  }
  return bytes;
}

Normalizer read_precompiled(const Json& step) {
  const auto map = std::make_shared<CharsMap>(decode_base64(step.at("precompiled_charsmap").get<std::string>()));
  return [map](std::string_view text) { return (*map)(text); };
}

template <NormalForm form>
Normalizer read_form(const Json&) {
  return [](std::string_view text) { return normal_form(text, form); };
}

struct NormalizerType {
  std::string_view name;
  Normalizer (*read)(const Json& step);
};
constexpr NormalizerType kNormalizers[] = {
    {"NFC", read_form<NormalForm::nfc>},
    {"NFD", read_form<NormalForm::nfd>},
    {"NFKC", read_form<NormalForm::nfkc>},
    {"NFKD", read_form<NormalForm::nfkd>},
    {"Lowercase", [](const Json&) -> Normalizer { return lower_case; }},
    {"Replace", read_replace},
    {"Precompiled", read_precompiled},
    {"Prepend",
     [](const Json& step) -> Normalizer {
       return [front = text_of(step, "prepend")](std::string_view text) {
         return text.empty() ? std::string() : front + std::string(text);
       };
     }},
    {"Strip",
     [](const Json& step) -> Normalizer {
       const bool left = step.at("strip_left").get<bool>(), right = step.at("strip_right").get<bool>();
       return [left, right](std::string_view text) { return strip(text, left, right); };
     }},
};

// --- words

constexpr std::string_view kStart = "<|startoftext|>", kEnd = "<|endoftext|>";

// The alternatives of kClipPattern at `at`: their end; `at` itself where there is none.
std::size_t clip_word_end(std::string_view text, std::size_t at) {
  static constexpr std::array<std::string_view, 9> kFixed{kStart, kEnd, "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  for (const std::string_view fixed : kFixed)
    if (text.substr(at).starts_with(fixed)) return at + fixed.size();
  std::size_t after = at;
  const char32_t c = next_char(text, after);
  if (is_letter(c)) return run_end(text, at, is_letter);
  if (is_number(c)) return after;
  return run_end(text, at, [](char32_t other) { return !is_space(other) && !is_letter(other) && !is_number(other); });
}

void cut_clip_words(const Word& word, std::vector<Word>& to) {
  const auto add = [&](std::string_view text) { to.push_back({bytes_to_characters(text), false}); };
  for (std::size_t at = 0; at < word.text.size();) {
    const std::size_t end = clip_word_end(word.text, at);
    const std::string_view found = std::string_view(word.text).substr(at, end - at);
    if (end == at) {
      next_char(word.text, at);  // white space
      continue;
    }
    if (found == kStart || found == kEnd) {  // byte level's own pattern cuts these once more
      add("<|");
      add(found.substr(2, found.size() - 4));
      add("|>");
    } else {
      add(found);
    }
    at = end;
  }
}

void cut_at_spaces(const Word& word, std::vector<Word>& to) {
  const std::string_view text = word.text;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = run_end(text, at, is_space);
    at = run_end(text, begin, [](char32_t c) { return !is_space(c); });
    if (at > begin) to.push_back({std::string(text.substr(begin, at - begin)), word.first && begin == 0});
  }
}

enum class Prepend : std::uint8_t { always, first, never };

// Spaces become `space`, one is put in front, and words begin at each.
void cut_metaspace(const Word& word, const std::string& space, Prepend prepend, bool split, std::vector<Word>& to) {
  std::string text = replace_text(word.text, " ", space);
  const bool wanted = prepend == Prepend::always || (prepend == Prepend::first && word.first);
  if (wanted && !text.empty() && !text.starts_with(space)) text = space + text;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = split ? std::min(text.find(space, begin + 1), text.size()) : text.size();
    to.push_back({text.substr(begin, end - begin), word.first && begin == 0});
    begin = end;
  }
}

PreTokenizer read_metaspace(const Json& step) {
  const std::string space = text_of(step, "replacement");
  const auto scheme = step.value("prepend_scheme", step.value("add_prefix_space", true) ? "always" : "never");
  constexpr std::array<std::string_view, 3> kSchemes{"always", "first", "never"};
  const auto found = std::find(kSchemes.begin(), kSchemes.end(), scheme);
  if (space.empty() || found == kSchemes.end()) refuse(step);
  const auto prepend = static_cast<Prepend>(found - kSchemes.begin());
  return [space, prepend, split = step.value("split", true)](const Word& word, std::vector<Word>& to) {
    cut_metaspace(word, space, prepend, split, to);
  };
}

// A sequence's steps, or the step itself; none for null.
std::vector<Json> steps_of(const Json& step, const char* member) {
  if (step.is_null()) return {};
  if (type_of(step) != "Sequence") return {step};
  std::vector<Json> steps;
  for (const Json& inner : step.at(member))
    for (Json& one : steps_of(inner, member)) steps.push_back(std::move(one));
  return steps;
}

}  // namespace

void read_steps(const Json& normalizer, const Json& pre_tokenizer, TokenizerParts& parts) {
  bool moves_start = false;
  for (const Json& step : steps_of(normalizer, "normalizers")) {
    const auto type = type_of(step);
    const auto* found = std::find_if(std::begin(kNormalizers), std::end(kNormalizers),
                                     [&](const NormalizerType& known) { return known.name == type; });
    if (found == std::end(kNormalizers)) refuse(step);
    parts.normalizers.push_back(found->read(step));
    moves_start = moves_start || (type == "Strip" && step.at("strip_left").get<bool>());
  }
  const std::vector<Json> cuts = steps_of(pre_tokenizer, "pretokenizers");
  for (std::size_t i = 0; i < cuts.size(); ++i) {
    const auto type = type_of(cuts[i]);
    if (type == "Metaspace") {
      // "first" goes by the place in the original text, which is lost where its beginning was stripped.
      if (moves_start && cuts[i].value("prepend_scheme", "") == "first") refuse(cuts[i]);
      parts.pre_tokenizers.push_back(read_metaspace(cuts[i]));
    } else if (type == "WhitespaceSplit") {
      parts.pre_tokenizers.emplace_back(cut_at_spaces);
    } else if (type == "Split" && i + 1 < cuts.size() && type_of(cuts[i + 1]) == "ByteLevel") {
      const Json &split = cuts[i], &bytes = cuts[++i];
      const bool is_clip = split.at("pattern") == Json{{"Regex", kClipPattern}} && split.at("behavior") == "Removed";
      if (!is_clip || !split.at("invert").get<bool>()) refuse(split);
      if (bytes.value("add_prefix_space", true) || !bytes.value("use_regex", true)) refuse(bytes);
      parts.pre_tokenizers.push_back(clip_words());
    } else {
      refuse(cuts[i]);
    }
  }
}

std::vector<Normalizer> clip_normalizers() {
  return {[](std::string_view text) { return normal_form(text, NormalForm::nfc); },
          [](std::string_view text) { return replace_runs(text, is_space, 1, " "); }, lower_case};
}

PreTokenizer clip_words() { return cut_clip_words; }

}  // namespace vitrine::detail
