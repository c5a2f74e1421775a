// Unicode by utf8proc: classes, normal forms, lower case. Texts are UTF-8; what takes one expects it to be valid. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vitrine::detail {

// Throws Error: `WHAT: byte N is not UTF-8`.
void check_utf8(std::string_view text, std::string_view what);

// The code point at `at`, which is moved behind it.
char32_t next_char(std::string_view text, std::size_t& at);
void append_char(std::string& to, char32_t c);

bool is_letter(char32_t c);  // \p{L}
bool is_number(char32_t c);  // \p{N}
bool is_space(char32_t c);   // White_Space

enum class NormalForm : std::uint8_t { nfc, nfd, nfkc, nfkd };
std::string normal_form(std::string_view text, NormalForm form);
std::string lower_case(std::string_view text);  // each character by itself
std::vector<std::string_view> graphemes(std::string_view text);

}  // namespace vitrine::detail
