// PNG specification (third edition), 11.3.3: tEXt is a keyword, a zero and Latin-1; zTXt the same with a text that is compressed,
// after a byte for the method; iTXt has UTF-8, which may be compressed, after a language and the keyword in it.
#include <vitrine/pipelines/png_text.h>

#include <algorithm>
#include <optional>
#include <span>

#include <fmt/format.h>
#include <zlib.h>

#include <vitrine/layers/error.h>
#include <vitrine/layers/names.h>
#include <vitrine/pipelines/files.h>
#include <vitrine/pipelines/picture_format.h>
#include <vitrine/pipelines/text/unicode.h>

namespace vitrine {
namespace {

using detail::printable;

constexpr std::size_t kLongestKeyword = 79, kMostText = std::size_t{1} << 24;

bool is_keyword(std::string_view keyword) {
  const auto is_printable = [](char c) { return c >= ' ' && c <= '~'; };
  return !keyword.empty() && keyword.size() <= kLongestKeyword && keyword.front() != ' ' && keyword.back() != ' ' &&
         keyword.find("  ") == std::string_view::npos && std::all_of(keyword.begin(), keyword.end(), is_printable);
}

std::string from_latin1(std::string_view text) {
  std::string utf8;
  for (const char c : text) detail::append_char(utf8, static_cast<unsigned char>(c));
  return utf8;
}

// Nothing where it is damaged or larger than `most`.
std::optional<std::string> inflate_text(std::string_view packed, std::size_t most) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return std::nullopt;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string text;
  int status = Z_OK;
  while (status == Z_OK && text.size() <= most) {
    char part[1 << 14];
    stream.next_out = reinterpret_cast<Bytef*>(part);
    stream.avail_out = sizeof(part);
    status = inflate(&stream, Z_NO_FLUSH);
    text.append(part, sizeof(part) - stream.avail_out);
  }
  inflateEnd(&stream);
  return status == Z_STREAM_END && text.size() <= most ? std::optional(std::move(text)) : std::nullopt;
}

// Cuts off and gives what lies before the next zero; nothing where there is none.
std::optional<std::string_view> until_zero(std::string_view& rest) {
  const std::size_t zero = rest.find('\0');
  if (zero == std::string_view::npos) return std::nullopt;
  const std::string_view part = rest.substr(0, zero);
  rest.remove_prefix(zero + 1);
  return part;
}

// The text of a body behind its keyword, UTF-8; nothing where it is damaged or larger than `most`.
std::optional<std::string> text_of(std::string_view type, std::string_view rest, std::size_t most) {
  if (type == "tEXt") return from_latin1(rest);
  if (type == "zTXt") {
    if (rest.empty() || rest[0] != 0) return std::nullopt;
    const auto text = inflate_text(rest.substr(1), most);
    return text ? std::optional(from_latin1(*text)) : std::nullopt;
  }
  if (rest.size() < 2 || (rest[0] != 0 && (rest[0] != 1 || rest[1] != 0))) return std::nullopt;
  const bool compressed = rest[0] == 1;
  rest.remove_prefix(2);
  if (!until_zero(rest) || !until_zero(rest)) return std::nullopt;  // language, keyword in it
  return compressed ? inflate_text(rest, most) : std::string(rest);
}

void append(std::vector<std::uint8_t>& body, std::string_view text) { body.insert(body.end(), text.begin(), text.end()); }

}  // namespace

std::vector<std::pair<std::string_view, std::vector<std::uint8_t>>> png_text_chunks(const PngMetadata& metadata,
                                                                                    const std::string& where) {
  std::vector<std::pair<std::string_view, std::vector<std::uint8_t>>> chunks;
  std::size_t size = 0;
  for (const auto& [keyword, text] : metadata) {
    if (!is_keyword(keyword))
      throw Error(
          fmt::format("{}: the keyword '{}', expected 1 to {} printable ASCII characters, spaces only one by one between others",
                      where, printable(keyword), kLongestKeyword));
    detail::check_utf8(text, fmt::format("{}: the text '{}'", where, keyword));
    if (text.find('\0') != std::string::npos) throw Error(fmt::format("{}: the text '{}' has a zero in it", where, keyword));
    if ((size += text.size()) > kMostText) throw Error(fmt::format("{}: texts of more than {} bytes", where, kMostText));
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return (c >= ' ' && c <= '~') || c == '\n'; });
    std::vector<std::uint8_t> body;
    append(body, keyword);
    append(body, ascii ? std::string_view("\0", 1) : std::string_view("\0\0\0\0\0", 5));
    append(body, text);
    chunks.emplace_back(ascii ? "tEXt" : "iTXt", std::move(body));
  }
  return chunks;
}

PngMetadata read_png_metadata(const std::string& path) {
  const std::vector<std::uint8_t> file = read_file(path, "a PNG");
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (!bytes.starts_with(kPngSignature)) throw Error(fmt::format("{}: not a PNG", path));
  PngMetadata metadata;
  std::size_t size = 0;
  for_each_png_chunk(file, path, [&](const PngChunk& chunk) {
    // Of any kind: a text whose type was damaged is no text any more.
    if (!chunk.is_intact()) throw Error(fmt::format("{}: damaged PNG: the checksum at byte {} is wrong", path, chunk.at));
    if (chunk.type != "tEXt" && chunk.type != "zTXt" && chunk.type != "iTXt") return;
    std::string_view rest(reinterpret_cast<const char*>(chunk.body.data()), chunk.body.size());
    const auto keyword = until_zero(rest);
    auto text = keyword ? text_of(chunk.type, rest, kMostText - size) : std::nullopt;
    if (!text)
      throw Error(fmt::format("{}: the text at byte {} is damaged, or all are larger than {} bytes", path, chunk.at, kMostText));
    if (chunk.type == "iTXt") detail::check_utf8(*text, fmt::format("{}: the text at byte {}", path, chunk.at));
    if ((size += text->size()) > kMostText) throw Error(fmt::format("{}: texts of more than {} bytes", path, kMostText));
    metadata.insert_or_assign(from_latin1(*keyword), std::move(*text));
  });
  return metadata;
}

}  // namespace vitrine
