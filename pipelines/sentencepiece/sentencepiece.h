// SentencePiece, for .model files. libvitrine_sentencepiece.so is loaded when the first one comes: the library, with protocol
// buffers of its own, would make every start a tenth longer (0.6 of 6 ms). Not part of the public interface.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include <vitrine/pipelines/text/parts.h>

namespace vitrine {

inline constexpr int kSentencePieceVersion = 1;

struct SentencePieceInfo {
  std::int64_t size, unk_id, end_id, pad_id;  // pieces; ids below 0: there is none
};
// Gets a piece: its id and text, and whether it is a control symbol, which no text is cut into.
using SentencePieceTake = void(void* context, std::int64_t id, const char* text, std::int64_t size, bool is_control);

// The library's functions. Those that can fail give null or another number than 0, and a message of one line.
struct SentencePieceCalls {
  int version;
  void* (*open)(const char* bytes, std::int64_t size, SentencePieceInfo* info, char* message, std::int64_t message_size);
  void (*close)(void* model);
  void (*pieces)(const void* model, void* context, SentencePieceTake* take);  // all, by id
  int (*encode)(const void* model, const char* text, std::int64_t size, void* context, SentencePieceTake* take, char* message,
                std::int64_t message_size);
};
using SentencePieceCallsFunction = const SentencePieceCalls*();  // vitrine_sentencepiece_calls

// A model from the bytes of its file, and what it says of itself; throws Error.
std::shared_ptr<const detail::TokenModel> open_sentencepiece(std::string_view bytes, SentencePieceInfo& info,
                                                             std::vector<detail::AddedToken>& controls);

}  // namespace vitrine
