// stb_image behind one function: not part of the public interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <vitrine/pipelines/image.h>
#include <vitrine/pipelines/picture_format.h>

namespace vitrine {

// Grey pictures give one channel, all others three.
Image stb_decode(std::span<const std::uint8_t> bytes, PictureFormat format, const std::string& name);

// A JPEG file of a picture of 1 or 3 channels.
std::vector<std::uint8_t> stb_encode_jpeg(const Image& image, int quality);

}  // namespace vitrine
