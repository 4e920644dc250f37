# Time one Newton iteration of survival::coxph on data that benchmarks/cox_step.py wrote.
#
#   Rscript benchmarks/cox_step.R DATA N P
#
# DATA holds doubles: the covariates column by column, the follow-up times, the events. Then each
# line on standard input asks for one measurement: the time of a fit of up to 6 iterations less the
# time of a fit of 1, over the extra iterations. Reading, sorting and scaling cancel out.

suppressPackageStartupMessages(library(survival))

arguments <- commandArgs(trailingOnly = TRUE)
n <- as.integer(arguments[2])
p <- as.integer(arguments[3])
con <- file(arguments[1], "rb")
x <- matrix(readBin(con, "double", n * p), n, p)
y <- Surv(readBin(con, "double", n), readBin(con, "double", n))
close(con)

fit <- function(iterations) {
  gc()
  # The smallest tolerance keeps the fit from stopping before the iterations asked for.
  control <- coxph.control(eps = 1e-300, toler.chol = 1e-301, iter.max = iterations)
  start <- proc.time()[["elapsed"]]
  fitted <- suppressWarnings(coxph.fit(
    x, y, strata = NULL, offset = NULL, init = NULL, control = control, weights = NULL,
    method = "efron", rownames = NULL, resid = FALSE
  ))
  c(seconds = proc.time()[["elapsed"]] - start, iterations = fitted$iter)
}

cat("ready", as.character(packageVersion("survival")), "\n")
flush(stdout())
asked <- file("stdin", "r")
while (length(readLines(asked, 1)) == 1) {
  short <- fit(1)
  long <- fit(6)
  extra <- long[["iterations"]] - short[["iterations"]]
  cat(sprintf("%.17g\n", (long[["seconds"]] - short[["seconds"]]) / extra))
  flush(stdout())
}
