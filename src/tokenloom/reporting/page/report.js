for (const prompt of document.querySelectorAll(".prompt")) {
  const samples = [...prompt.querySelectorAll("details .sample"), prompt.querySelector(".selected .sample")];
  if (samples.length < 2) continue;
  const slider = prompt.querySelector("input");
  prompt.querySelector("details").remove();
  prompt.querySelector(".slider").hidden = false;
  const show = () => {
    const sample = samples[slider.value];
    prompt.querySelector(".selected").replaceChildren(sample);
    slider.setAttribute("aria-valuetext", sample.querySelector("p").textContent);
  };
  slider.addEventListener("input", show);
  show();
}
