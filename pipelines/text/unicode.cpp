#include <vitrine/pipelines/text/unicode.h>

#include <cstdlib>
#include <memory>

#include <fmt/format.h>
#include <utf8proc.h>

#include <vitrine/layers/error.h>

namespace vitrine::detail {
namespace {

// Bytes of the character at the beginning of `text`, below 1 where there is none.
std::ptrdiff_t decode(std::string_view text, utf8proc_int32_t& c) {
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &c);
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

}  // namespace

void check_utf8(std::string_view text, std::string_view what) {
  utf8proc_int32_t c = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::ptrdiff_t bytes = decode(text.substr(at), c);
    if (bytes < 1) throw Error(fmt::format("{}: byte {} is not UTF-8", what, at));
    at += static_cast<std::size_t>(bytes);
  }
}

char32_t next_char(std::string_view text, std::size_t& at) {
  utf8proc_int32_t c = 0;
  const std::ptrdiff_t bytes = decode(text.substr(at), c);
  at += bytes < 1 ? 1 : static_cast<std::size_t>(bytes);
  return bytes < 1 ? U'\uFFFD' : static_cast<char32_t>(c);
}

void append_char(std::string& to, char32_t c) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  to.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(count));
}

bool is_letter(char32_t c) {
  const auto found = category(c);
  return found >= UTF8PROC_CATEGORY_LU && found <= UTF8PROC_CATEGORY_LO;
}

bool is_number(char32_t c) {
  const auto found = category(c);
  return found >= UTF8PROC_CATEGORY_ND && found <= UTF8PROC_CATEGORY_NO;
}

bool is_space(char32_t c) {
  const auto found = category(c);
  return (found >= UTF8PROC_CATEGORY_ZS && found <= UTF8PROC_CATEGORY_ZP) || (c >= 9 && c <= 13) || c == 0x85;
}

std::string normal_form(std::string_view text, NormalForm form) {
  constexpr int kOptions[] = {UTF8PROC_COMPOSE, UTF8PROC_DECOMPOSE, UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                              UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
  utf8proc_uint8_t* result = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | kOptions[static_cast<std::size_t>(form)]));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, std::free);
  if (size < 0) throw Error(fmt::format("a text cannot be normalized: {}", utf8proc_errmsg(size)));
  return {reinterpret_cast<const char*>(result), static_cast<std::size_t>(size)};
}

std::string lower_case(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    // The one character that becomes two: I with a dot above is i with a combining dot.
    if (c == U'\u0130')
      result += "i\u0307";
    else
      append_char(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  }
  return result;
}

std::vector<std::string_view> graphemes(std::string_view text) {
  std::vector<std::string_view> clusters;
  utf8proc_int32_t state = 0;
  char32_t before = 0;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t here = at;
    const char32_t c = next_char(text, at);
    if (here > 0 &&
        utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before), static_cast<utf8proc_int32_t>(c), &state)) {
      clusters.push_back(text.substr(begin, here - begin));
      begin = here;
    }
    before = c;
  }
  if (begin < text.size()) clusters.push_back(text.substr(begin));
  return clusters;
}

}  // namespace vitrine::detail
