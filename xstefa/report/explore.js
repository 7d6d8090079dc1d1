const chosen = places.selected.indices;
if (chosen.length === 0) return;
const site = chosen[chosen.length - 1];
const days = one.data.time.length;
const data = {time: one.data.time};
for (const name of Object.keys(everything.data)) {
  data[name] = everything.data[name].slice(site * days, (site + 1) * days);
}
one.data = data;
if (data.rain) hanging.start = Math.max(1, ...data.rain.filter((mm) => mm > 0));
const name = document.createElement("h2");
name.textContent = places.data.name[site];
heading.text = name.outerHTML;
if (select.value !== places.data.name[site]) select.value = places.data.name[site];
