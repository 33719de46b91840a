// GLM-5.2's chat template (chat_template.jinja of the checkpoint), statement by statement.
#pragma once

#include <string>

#include "engine/text/chat_template.h"

namespace assay::text {

Result<std::string> render_glm(const OrderedJson& messages, const ChatOptions& options);

}  // namespace assay::text
