# Cohen's kappa by vcd::Kappa. Run from the repository root: Rscript tests/oracle/kappa.R
suppressPackageStartupMessages(library(vcd))
out <- "tests/oracle/data"
read <- function(name) as.matrix(read.csv(file.path(out, paste0("matrix_", name, ".csv")),
                                          header = FALSE))
rows <- NULL
for (name in c("site1", "site2", "site3", "site4", "miller")) {
  m <- unname(read(name))
  for (weights in c("Equal-Spacing", "Fleiss-Cohen")) {
    k <- Kappa(m, weights = weights)
    label <- if (weights == "Equal-Spacing") "linear" else "quadratic"
    rows <- rbind(rows, data.frame(matrix = name, weights = label,
                                   kappa = k$Weighted[["value"]], se = k$Weighted[["ASE"]]))
    if (label == "linear")
      rows <- rbind(rows, data.frame(matrix = name, weights = "unweighted",
                                     kappa = k$Unweighted[["value"]], se = k$Unweighted[["ASE"]]))
  }
}
for (column in c("kappa", "se")) rows[[column]] <- sprintf("%.17g", rows[[column]])
write.csv(rows, file.path(out, "kappa_expected.csv"), row.names = FALSE, quote = FALSE)
writeLines(c(R.version.string, paste("vcd", packageVersion("vcd"))),
           file.path(out, "kappa_versions.txt"))
