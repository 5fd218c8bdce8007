// A place where files are chosen, dropped or pasted.

/** Call a function with each file that the user gives. */
export function onFile(label, input, take) {
  const choose = () => {
    if (input.files[0]) take(input.files[0]);
    input.value = ""; // the same file again is a change, too
  };
  input.addEventListener("change", choose);
  label.addEventListener("dragover", (event) => {
    event.preventDefault();
    label.classList.add("pv-over");
  });
  label.addEventListener("dragleave", () => label.classList.remove("pv-over"));
  label.addEventListener("drop", (event) => {
    event.preventDefault();
    label.classList.remove("pv-over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  choose(); // what was chosen before this script had come
}
