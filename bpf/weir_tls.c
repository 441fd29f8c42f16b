// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* weir_tls.c: the programs that read TLS connections' plaintext in their processes (uprobes), and the readers of
 * protocols once more, for them (carrier.h). Maps of the same name are those of weir.c. The loader defines what it
 * does for that one, and WEIR_USER.
 */
#include "tls_forget.h"
#include "tls_go.h"
