// What OpenCV decodes and stb_image does not: WebP, TIFF and rare kinds of PNM. libvitrine_codecs.so is loaded when the
// first such file comes, since OpenCV's codecs cost 60 MB and 0.2 s at start. Not part of the public interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <vitrine/pipelines/image.h>

namespace vitrine {

inline constexpr int kCodecsVersion = 1;

// The library's two C functions. decode gives 0 and has called `allocate` once for width * height * channels bytes of grey
// or RGB, or gives another value and a message of one line.
using CodecsVersionFunction = int();
using CodecsAllocate = std::uint8_t*(void* context, std::int64_t width, std::int64_t height, int channels);
using CodecsDecodeFunction = int(const std::uint8_t* data, std::int64_t size, void* context, CodecsAllocate* allocate,
                                 char* message, std::int64_t message_size);

Image opencv_decode(std::span<const std::uint8_t> bytes, const std::string& name);

}  // namespace vitrine
