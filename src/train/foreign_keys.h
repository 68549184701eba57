// Names that other trainers have for what a key of ours says: for "did you mean" and for docs/moving.md.
#pragma once

#include <span>
#include <string_view>

namespace ptrain {

struct ForeignKey {
  std::string_view name;   // theirs, the last part of a path: "per_device_train_batch_size"
  std::string_view whose;  // "HF Trainer, axolotl"
  std::string_view ours;   // dotted path of the key; empty: nothing here, `note` says why
  std::string_view note;   // how the value translates; empty: as it is
};

std::span<const ForeignKey> foreign_keys();

/// By the last part of a path, whatever its section; - and _ are equal. Null where nobody calls anything so.
const ForeignKey* find_foreign(std::string_view path);

}  // namespace ptrain
