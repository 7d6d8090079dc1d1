if (!window.matchMedia("(prefers-color-scheme: dark)").matches) return;
const [paper, ink, rule] = ["#15181c", "#e4e6e8", "#5a626a"];
for (const figure of figures) {
  Object.assign(figure, {background_fill_color: paper, border_fill_color: paper, outline_line_color: rule});
  for (const part of [...figure.below, ...figure.left, ...figure.center]) {
    for (const [property, colour] of Object.entries({
      axis_label_text_color: ink, major_label_text_color: ink, title_text_color: ink,
      label_text_color: ink, axis_line_color: rule, major_tick_line_color: rule,
      minor_tick_line_color: rule, grid_line_color: "#2b3036", background_fill_color: paper,
      border_line_color: rule,
    })) if (property in part) part[property] = colour;
  }
  for (const renderer of figure.renderers) {
    if (renderer.glyph?.line_color?.value === "#1b1b1b") renderer.glyph.line_color = "#f2f2f2";
  }
}
