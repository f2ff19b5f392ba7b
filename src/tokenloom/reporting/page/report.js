for (const prompt of document.querySelectorAll(".prompt")) {
  const takes = [...prompt.querySelectorAll("details .take"), prompt.querySelector(".stage .take")];
  if (takes.length < 2) continue;
  const slider = prompt.querySelector("input");
  prompt.querySelector("details").remove();
  prompt.querySelector(".scrub").hidden = false;
  const show = () => {
    const take = takes[slider.value];
    prompt.querySelector(".stage").replaceChildren(take);
    slider.setAttribute("aria-valuetext", take.querySelector("p").textContent);
  };
  slider.addEventListener("input", show);
  show();
}
