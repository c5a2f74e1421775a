#include <vitrine/backbones/backbone.h>

namespace vitrine {

Backbone::~Backbone() = default;

}  // namespace vitrine
