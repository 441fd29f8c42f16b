// SPDX-License-Identifier: Apache-2.0
// What a dashboard's JSON may say, from Grafana's own types: those are of a program, where an enum is no string.
import type { AnnotationQuery, Dashboard, ThresholdsConfig } from "@grafana/schema";
import type { Options as BarGauge } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts";
import type { Options as Heatmap } from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen.d.ts";
import type { Options as NodeGraph } from "@grafana/schema/dist/esm/raw/composable/nodegraph/panelcfg/x/NodeGraphPanelCfg_types.gen.d.ts";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type { FieldConfig as TableField, Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts";
import type { Options as Text } from "@grafana/schema/dist/esm/raw/composable/text/panelcfg/x/TextPanelCfg_types.gen.d.ts";
import type { FieldConfig as TimeSeriesField, Options as TimeSeries } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

export type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? `${T}` extends `${infer N extends number}` ? N : number
    : T extends (infer U)[]
      ? Json<U>[]
      : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

// An annotation of Prometheus has its expression beside what all of them have.
type Annotation = Json<AnnotationQuery> & { expr?: string };
export type Board = Omit<Json<Dashboard>, "annotations"> & { annotations?: { list?: Annotation[] } };

// Of panels the dashboard's type leaves these open.
export type Options = {
  bargauge: Partial<Json<BarGauge>>;
  heatmap: Partial<Json<Heatmap>>;
  nodeGraph: Partial<Json<NodeGraph>>;
  stat: Partial<Json<Stat>>;
  table: Partial<Json<Table>>;
  text: Partial<Json<Text>>;
  timeseries: Partial<Json<TimeSeries>>;
};
export type Custom = { table: Partial<Json<TableField>>; timeseries: Json<TimeSeriesField> };
export type Thresholds = Json<ThresholdsConfig>;
