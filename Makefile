.PHONY: infrastructure test run

infrastructure test run:
	./run $(subst run,up,$@)
