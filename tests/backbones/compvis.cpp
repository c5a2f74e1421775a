#include "backbones/compvis.h"

#include <array>
#include <regex>

#include <fmt/format.h>

#include <vitrine/layers/ops.h>

namespace vitrine::test {
namespace {

// As CompVis numbers its blocks: three to a level, the third of the way down halves.
std::string compvis_name(const std::string& name, bool has_attention) {
  std::smatch m;
  const auto at = [&](int group) { return std::stoi(m[static_cast<std::size_t>(group)].str()); };
  std::string inner = name;
  if (std::regex_match(name, m, std::regex(R"((down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*))"))) {
    const bool is_down = m[1].str() == "down";
    inner = (is_down ? "input_blocks." : "output_blocks.") + std::to_string(3 * at(2) + at(4) + (is_down ? 1 : 0)) +
            (m[3].str() == "resnets" ? ".0." : ".1.") + m[5].str();
  } else if (std::regex_match(name, m, std::regex(R"(down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*))"))) {
    inner = "input_blocks." + std::to_string(3 * at(1) + 3) + ".0.op." + m[2].str();
  } else if (std::regex_match(name, m, std::regex(R"(up_blocks\.(\d)\.upsamplers\.0\.(.*))"))) {
    inner = "output_blocks." + std::to_string(3 * at(1) + 2) + (has_attention ? ".2." : ".1.") + m[2].str();
  }
  constexpr std::pair<const char*, const char*> kRenamed[] = {{"conv_in.", "input_blocks.0.0."},
                                                              {"mid_block.resnets.0", "middle_block.0"},
                                                              {"mid_block.attentions.0", "middle_block.1"},
                                                              {"mid_block.resnets.1", "middle_block.2"},
                                                              {"conv_norm_out", "out.0"},
                                                              {"conv_out", "out.2"},
                                                              {"time_embedding.linear_1", "time_embed.0"},
                                                              {"time_embedding.linear_2", "time_embed.2"},
                                                              {"add_embedding.linear_1", "label_emb.0.0"},
                                                              {"add_embedding.linear_2", "label_emb.0.2"},
                                                              {"time_emb_proj", "emb_layers.1"},
                                                              {"conv_shortcut", "skip_connection"}};
  for (const auto& [ours, theirs] : kRenamed)
    if (const auto place = inner.find(ours); place != inner.npos) inner.replace(place, std::string(ours).size(), theirs);
  if (inner.find("blocks.") != inner.npos || inner.find("middle_block.0") == 0 || inner.find("middle_block.2") == 0) {
    constexpr std::pair<const char*, const char*> kLayers[] = {{".0.norm1.", ".0.in_layers.0."},
                                                               {".0.conv1.", ".0.in_layers.2."},
                                                               {".0.norm2.", ".0.out_layers.0."},
                                                               {".0.conv2.", ".0.out_layers.3."},
                                                               {"block.2.norm1.", "block.2.in_layers.0."},
                                                               {"block.2.conv1.", "block.2.in_layers.2."},
                                                               {"block.2.norm2.", "block.2.out_layers.0."},
                                                               {"block.2.conv2.", "block.2.out_layers.3."}};
    for (const auto& [ours, theirs] : kLayers)
      if (const auto place = inner.find(ours); place != inner.npos && inner.find("transformer_blocks") == inner.npos)
        inner.replace(place, std::string(ours).size(), theirs);
  }
  return "model.diffusion_model." + inner;
}

}  // namespace

Tensors under_names(const Tensors& tensors, const std::vector<std::pair<std::string, std::string>>& renames) {
  Tensors other;
  for (const auto& [name, tensor] : tensors) {
    std::string changed = name;
    for (const auto& [pattern, to] : renames) changed = std::regex_replace(changed, std::regex(pattern), to);
    other[changed] = tensor;
  }
  return other;
}

Tensors compvis_unet(const Tensors& tensors) {
  Tensors file;
  for (const auto& [name, tensor] : tensors) {
    const std::string level = name.substr(0, name.find('.', name.find('.') + 1));  // up_blocks.1
    file[compvis_name(name, tensors.contains(level + ".attentions.2.norm.weight"))] = tensor;
  }
  return file;
}

Tensors compvis_autoencoder(const Tensors& tensors, int levels) {
  std::vector<std::pair<std::string, std::string>> compvis{{R"(mid_block\.resnets\.0)", "mid.block_1"},
                                                           {R"(mid_block\.resnets\.1)", "mid.block_2"},
                                                           {R"(mid_block\.attentions\.0)", "mid.attn_1"},
                                                           {R"(group_norm)", "norm"},
                                                           {R"(\.to_([qkv])\.)", ".$1."},
                                                           {R"(\.to_out\.0\.)", ".proj_out."},
                                                           {R"(conv_norm_out)", "norm_out"},
                                                           {R"(conv_shortcut)", "nin_shortcut"},
                                                           {R"(down_blocks\.)", "down."},
                                                           {R"(downsamplers\.0)", "downsample"},
                                                           {R"(upsamplers\.0)", "upsample"},
                                                           {R"(\.resnets\.)", ".block."}};
  for (int i = 0; i < levels; ++i)
    compvis.push_back({fmt::format(R"(up_blocks\.{}\.)", i), fmt::format("up.{}.", levels - 1 - i)});
  auto theirs = under_names(tensors, compvis);
  for (auto& [name, tensor] : theirs)
    if (name.find("attn_1") != name.npos && tensor.rank() == 2)
      tensor = tensor.view({tensor.size(0), tensor.size(1), 1, 1});  // convolutions there
  return theirs;
}

Tensors as_open_clip(const Tensors& ours, const std::string& prefix) {
  const std::string text = "text_model.";
  Tensors file{{prefix + "logit_scale", Tensor::zeros({1})}, {prefix + "visual.class_embedding", Tensor::zeros({5})}};
  const std::vector<std::pair<std::string, std::string>> names{{"embeddings.token_embedding.weight", "token_embedding.weight"},
                                                               {"embeddings.position_embedding.weight", "positional_embedding"},
                                                               {"final_layer_norm.weight", "ln_final.weight"},
                                                               {"final_layer_norm.bias", "ln_final.bias"}};
  for (const auto& [from, to] : names) file[prefix + to] = ours.at(text + from);
  if (ours.contains("text_projection.weight"))
    file[prefix + "text_projection"] = permute(ours.at("text_projection.weight"), std::array{1, 0});
  for (int i = 0; ours.contains(fmt::format("{}encoder.layers.{}.mlp.fc1.bias", text, i)); ++i) {
    const std::string from = fmt::format("{}encoder.layers.{}.", text, i),
                      to = fmt::format("{}transformer.resblocks.{}.", prefix, i);
    for (const std::string end : {"weight", "bias"}) {
      std::vector<Tensor> parts;
      for (const char* part : {"q", "k", "v"}) parts.push_back(ours.at(fmt::format("{}self_attn.{}_proj.{}", from, part, end)));
      file[to + "attn.in_proj_" + end] = concat(parts, 0);
      file[to + "attn.out_proj." + end] = ours.at(from + "self_attn.out_proj." + end);
      file[to + "ln_1." + end] = ours.at(from + "layer_norm1." + end);
      file[to + "ln_2." + end] = ours.at(from + "layer_norm2." + end);
      file[to + "mlp.c_fc." + end] = ours.at(from + "mlp.fc1." + end);
      file[to + "mlp.c_proj." + end] = ours.at(from + "mlp.fc2." + end);
    }
  }
  return file;
}

}  // namespace vitrine::test
