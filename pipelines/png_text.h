// Texts as PNG has them: not part of the public interface.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vitrine/pipelines/image.h>

namespace vitrine {

// A chunk's type and body for each text; throws Error for what a PNG cannot hold, `where` in front.
std::vector<std::pair<std::string_view, std::vector<std::uint8_t>>> png_text_chunks(const PngMetadata& metadata,
                                                                                    const std::string& where);

}  // namespace vitrine
