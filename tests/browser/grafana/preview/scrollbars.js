// SPDX-License-Identifier: Apache-2.0
// The bundler would take this package's exports for its default export.
export { Scrollbars, Scrollbars as default } from "./node_modules/react-custom-scrollbars-2/lib/index.js";
